"""An adapter's recommended settings at the size of a run's images, and what is said of it."""

import json
import shlex
from dataclasses import replace

import pytest

from guard_plugin.penalties import scale_h
from guard_plugin.plugins import Plugins
from tests.conftest import BASELINES

DIGITS = (1, 8, 8)
SQUEEZE = shlex.split("--dataset digits --model ConvNetBN16-32 --epochs 1 --n-train 128 --output-dir out")
BY_DEFAULT = Plugins().adapters["sre2l"].value


@pytest.fixture
def squeeze():
    return BASELINES / "sre2l" / "squeeze.py"


def test_h_follows_the_size_of_the_images_and_the_run_says_so(guard, squeeze, tmp_path):
    done = guard("run", "--ledger", "ledger.json", "sre2l", squeeze, *SQUEEZE)
    assert done.returncode == 0, done.stderr
    recommended, reference = BY_DEFAULT.settings["gradient"], BY_DEFAULT.settings_for
    h = scale_h(recommended["h"], from_shape=reference, to_shape=DIGITS)
    penalty = json.loads((tmp_path / "ledger.json").read_text())["penalty"]
    assert penalty["h"] == h and penalty["strength"] == recommended["strength"]
    assert penalty["reference"] == {"shape": list(reference), "h": recommended["h"]}
    assert penalty["h_at"] == {"1x8x8": h}
    size = "x".join(map(str, reference))
    first = next(line for line in done.stderr.splitlines() if line.startswith("guard: "))
    assert first.endswith(f"gradient form, strength 100, h {recommended['h']:g} at {size} -> {h:.4g} at 1x8x8")
    assert done.stderr.count("-> ") == 1


def test_a_given_h_is_taken_as_it_is(guard, squeeze, tmp_path):
    done = guard("run", "--h", "0.7", "--ledger", "ledger.json", "sre2l", squeeze, *SQUEEZE)
    penalty = json.loads((tmp_path / "ledger.json").read_text())["penalty"]
    assert penalty["h"] == 0.7 and "reference" not in penalty
    assert "guard: penalty curvature, gradient form, strength 100, h 0.7\n" in done.stderr


def test_the_recommended_settings_are_the_given_ones_bit_for_bit(guard, squeeze, tmp_path):
    recommended = BY_DEFAULT.settings["gradient"]
    h = scale_h(recommended["h"], from_shape=BY_DEFAULT.settings_for, to_shape=DIGITS)
    given = [f"--h={h!r}", f"--strength={recommended['strength']}"]
    for options, out in (([], "out"), (given, "given")):
        assert guard("run", *options, "sre2l", squeeze, *SQUEEZE[:-1], out).returncode == 0
    assert (tmp_path / "out" / "checkpoint.pth").read_bytes() == (tmp_path / "given" / "checkpoint.pth").read_bytes()


def test_an_adapter_without_a_reference_means_its_h_at_every_size():
    from guard_plugin.injection.penalty_choice import choose_penalty

    chosen = choose_penalty(Plugins(), replace(BY_DEFAULT, settings_for=None), {})
    assert chosen.reference is None and chosen.for_inputs(DIGITS) is chosen.penalty
