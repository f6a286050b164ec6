"""Settings that rise over the guarded loss calls."""

import pytest
import torch
from torch import nn

import guard_plugin
from guard_plugin.errors import PluginError, UnusableInput
from guard_plugin.penalties import Curvature, GradientNorm, PgdTraining
from guard_plugin.versions import keyword_dataclass
from tests.unit.penalties.linear import cross_entropy


def test_each_setting_rises_evenly_over_its_own_ramp():
    ramped = Curvature(strength=6.0, h=0.8, h_ramp=4, strength_ramp=2)
    assert [ramped.at(step).h for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert [ramped.at(step).strength for step in range(4)] == pytest.approx([3.0, 6.0, 6.0, 6.0])
    assert ramped.at(2).at(0).h == pytest.approx(0.6)


def test_eps_rises_beside_the_random_numbers():
    ramped = PgdTraining(eps=0.8, eps_ramp=4)
    assert [ramped.at(step).eps for step in (0, 3, 9)] == pytest.approx([0.2, 0.8, 0.8])


def test_without_a_ramp_a_penalty_is_itself():
    penalty = GradientNorm(strength=2.0)
    assert penalty.at(0) is penalty


def test_the_ledger_gets_the_ramps_as_they_were_set():
    assert Curvature(strength=2.0, h=0.8, h_ramp=4).settings() == {
        "name": "curvature",
        "combination": "added",
        "strength": 2.0,
        "strength_ramp": 0,
        "h": 0.8,
        "form": "gradient",
        "h_ramp": 4,
        "batch_statistics": False,
    }


@pytest.mark.parametrize("ramp", ["h_ramp", "strength_ramp"])
@pytest.mark.parametrize("wrong", [-1, 1.5])
def test_a_ramp_that_is_no_number_of_calls_is_refused(ramp, wrong):
    with pytest.raises(UnusableInput, match=f"expected {ramp} >= 0, a number of guarded loss calls, got {wrong}"):
        Curvature(strength=1.0, h=1.0, **{ramp: wrong})


def test_a_whole_number_with_a_ramp_is_refused_when_it_is_made():
    @keyword_dataclass
    class Stepwise(GradientNorm):
        steps: int = 3
        steps_ramp: int = 0

    with pytest.raises(PluginError, match="expected steps, which has a steps_ramp, to be a float"):
        Stepwise(strength=1.0)


def test_the_ramp_reaches_the_loss():
    net, x, y = nn.Linear(5, 3), torch.randn(4, 5), torch.tensor([0, 1, 2, 1])
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty="gradient_norm", strength=4.0, strength_ramp=2)
    plain = cross_entropy(net(x), y).mean()
    full = GradientNorm(strength=4.0)(net, x, y, loss_fn=cross_entropy)
    for share in (0.5, 1.0, 1.0):
        torch.testing.assert_close(criterion(net(x), y), plain + share * full)
