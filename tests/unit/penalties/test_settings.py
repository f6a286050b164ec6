"""Settings as text."""

from dataclasses import field
from typing import ClassVar

import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts import Adapter
from guard_plugin.injection.penalty_choice import choose_penalty
from guard_plugin.penalties import Curvature, GradientNorm, PgdTraining
from guard_plugin.penalties.settings import read_settings
from guard_plugin.plugins import Plugins
from guard_plugin.versions import keyword_dataclass


def test_texts_become_what_the_settings_are():
    texts = {"eps": "8/255", "steps": "10", "mean": "0.49,0.5", "std": "1/4,0.5", "strength": 0.5}
    assert read_settings(PgdTraining, texts) == {
        "eps": 8 / 255,
        "steps": 10,
        "mean": (0.49, 0.5),
        "std": (0.25, 0.5),
        "strength": 0.5,
    }
    assert read_settings(Curvature, {"form": "loss", "h": "1e-2"}) == {"form": "loss", "h": 0.01}
    for text, value in (("true", True), ("False", False)):
        assert read_settings(Curvature, {"batch_statistics": text}) == {"batch_statistics": value}
    with pytest.raises(UnusableInput, match="expected batch_statistics to be true or false, got 'yes'"):
        read_settings(Curvature, {"batch_statistics": "yes"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"eps": "much"}, "penalty 'pgd_at': expected eps to be a number, such as 0.5 or 8/255, got 'much'"),
        ({"eps": "1/0"}, "expected eps to be a number"),
        ({"eps": "1e400"}, "expected eps to be a number"),
        ({"eps": "1e99999999"}, "expected eps to be a number"),
        ({"eps": "nan"}, "expected eps to be a number"),
        ({"steps": "7.5"}, "expected steps to be a whole number, got '7.5'"),
        ({"mean": "0.5;0.5"}, "expected mean to be numbers, such as"),
    ],
)
def test_a_text_that_is_not_what_the_setting_is_is_refused(text, message):
    with pytest.raises(UnusableInput, match=message):
        read_settings(PgdTraining, text)


def test_a_setting_that_text_cannot_say_is_refused():
    @keyword_dataclass
    class Switched(GradientNorm):
        name: ClassVar[str] = "switched"
        by_class: dict = field(default_factory=dict)

    with pytest.raises(UnusableInput, match="'switched': by_class cannot be given as text"):
        read_settings(Switched, {"by_class": "{}"})


def test_an_adapter_recommends_settings_for_a_penalty_by_its_name():
    settings = {"gradient": {"h": 0.5, "strength": 100.0}, "trades": {"eps": 0.1}}
    adapter = Adapter(name="mine", host="someone/host", profiles=(), settings=settings)
    trades = choose_penalty(Plugins(found=[]), adapter, {"penalty": "trades"}).penalty
    assert (trades.strength, trades.eps) == (6.0, 0.1)
    with pytest.raises(UnusableInput, match="penalty 'pgd_at' needs eps"):
        choose_penalty(Plugins(found=[]), adapter, {"penalty": "pgd_at"})
    with pytest.raises(UnusableInput, match="penalty 'gradient_norm' needs strength"):
        choose_penalty(Plugins(found=[]), adapter, {"penalty": "gradient_norm"})
