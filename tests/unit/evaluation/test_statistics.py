import numpy as np
import pytest
from scipy.stats import binomtest, t

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.statistics import confidence_interval, paired_difference


def half_of(n):
    return np.arange(n) % 2 == 0


def test_one_student_has_the_binomial_interval():
    low, high = confidence_interval((np.arange(1000) < 300)[None])
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - spread, abs=0.003)
    assert high == pytest.approx(0.3 + spread, abs=0.003)


@pytest.mark.parametrize("students_differ", [True, False])
@pytest.mark.parametrize("n", [2, 3, 20, 31, 200])
def test_a_pure_effect_has_students_interval(students_differ, n):
    """Where all examples (or students) agree, the other side is an ordinary sample."""
    sample = half_of(n)
    outcomes = np.broadcast_to(sample[:, None], (n, 30))
    low, high = confidence_interval(outcomes if students_differ else outcomes.T)
    half = t.ppf(0.975, n - 1) * sample.std(ddof=1) / np.sqrt(n)
    assert high == pytest.approx(min(1, sample.mean() + half), abs=2e-3)
    assert low == pytest.approx(max(0, sample.mean() - half), abs=2e-3)


@pytest.mark.parametrize("always", [True, False])
def test_a_few_hundred_examples_prove_neither_0_nor_1(always):
    low, high = confidence_interval(np.full((3, 300), always))
    bound = proportion_bound(300)
    assert (low, high) == pytest.approx((1 - bound, 1) if always else (0, bound))
    assert confidence_interval(np.full((3, 30), always)) != (low, high)


def proportion_bound(n):
    """Wilson's upper bound for 0 of n, by scipy."""
    return binomtest(0, n).proportion_ci(method="wilson").high


@pytest.mark.parametrize("students", [3, 5, 12])
def test_the_intervals_cover_the_truth_as_often_as_they_say(students):
    random = np.random.default_rng(7)

    def arm(shared):
        return random.random((students, 1000)) < 0.5 + random.normal(0, 0.03, (students, 1)) + shared

    covered = zero = 0
    for _ in range(200):
        shared = random.normal(0, 0.15, (1, 1000))
        a, b = arm(shared), arm(shared)
        low, high = confidence_interval(a)
        covered += low <= 0.5 <= high
        _, low, high = paired_difference(a, b)
        zero += low <= 0 <= high
    # Of 200, 190 are due; 180 is more than 3 standard deviations away.
    assert covered >= 180 and zero >= 180


def test_pairing_cancels_what_both_arms_share():
    random = np.random.default_rng(0)
    baseline = random.random((12, 1)) + random.random((1, 500)) < 1
    better = baseline | (random.random((12, 500)) < 0.1)
    difference, low, high = paired_difference(better, baseline)
    assert difference == pytest.approx(better.mean() - baseline.mean())
    assert 0 < low < difference < high
    unpaired = np.diff(confidence_interval(better)) + np.diff(confidence_interval(baseline))
    assert high - low < 0.5 * unpaired


def test_differences_are_antisymmetric_and_zero_with_oneself():
    a, b = np.random.default_rng(1).random((2, 4, 50)) < 0.5
    difference, low, high = paired_difference(a, b)
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low))
    bound = proportion_bound(50)
    assert paired_difference(a, a) == pytest.approx((0, -bound, bound))


def test_unusable_outcomes_are_refused():
    with pytest.raises(UnusableInput, match="same students and examples"):
        paired_difference(np.ones((2, 5), bool), np.ones((3, 5), bool))
    for shape in ((5,), (0, 5), (2, 0)):
        with pytest.raises(UnusableInput, match="expected outcomes"):
            confidence_interval(np.ones(shape, bool))
