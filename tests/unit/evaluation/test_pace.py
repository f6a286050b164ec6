"""Rounds on machines whose rounds take known times."""

import pytest

from guard_plugin.attacks.classifier import PASS_UNIT
from guard_plugin.evaluation.pace import Pace, Paces


def rounds(seconds, examples=2000, first=16, most=512):
    """The sizes of the rounds that measure so many examples, where n of them take seconds(n)."""
    pace, sizes = Pace(first, most), []
    while sum(sizes) < examples:
        sizes.append(min(pace.examples, examples - sum(sizes)))
        pace.took(sizes[-1], seconds(sizes[-1]))
    return sizes


@pytest.mark.parametrize("per_example", [0.01, 0.05, 0.3, 0.9, 1.8])
def test_arithmetic_takes_half_a_minute_at_most(per_example):
    """The second round may take a minute: it tells arithmetic from latency."""
    sizes = rounds(lambda n: per_example * n)
    assert max(size * per_example for size in sizes[2:]) <= 30 and sizes[1] * per_example <= 60
    assert all(size * per_example > 15 or size == 512 for size in sizes[3:-1])  # and no round is much shorter


def test_slow_examples_are_taken_one_pass_at_a_time():
    first, *others = rounds(lambda n: 9.0 * n, examples=160)
    assert first == 16 and set(others) == {PASS_UNIT}


def test_latency_does_not_make_rounds_small():
    """On a GPU a round of 16 takes as long as one of 512."""
    assert rounds(lambda n: 20.0) == [16, 32, 128, 512, 512, 512, 288]


def test_a_known_machine_needs_no_small_rounds():
    paces = Paces(pass_seconds=2e-5)
    assert paces.of("a", 512).examples == 512 and Paces(pass_seconds=3e-3).of("a", 512).examples == PASS_UNIT
    assert Paces().of("a", 512).examples == PASS_UNIT
    paces.of("a", 512).took(512, 600.0)
    assert paces.of("a", 512).examples < 32 and paces.of("b", 512).examples == 512


def test_a_last_small_round_does_not_make_the_next_networks_rounds_small():
    pace = Pace(512, 512)
    pace.took(512, 1.0)
    pace.took(3, 0.1)
    assert pace.examples == 512


def test_the_least_round_is_one_pass():
    assert Pace(1, 4).examples == PASS_UNIT
