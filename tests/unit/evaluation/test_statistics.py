import numpy as np
import pytest
from scipy.stats import binom

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
def test_pure_effects_have_binomial_quantiles(students_differ):
    """Where all examples (or students) agree, the resampled mean is a binomial count of the other side over 20."""
    outcomes = np.broadcast_to(half_of(20)[:, None], (20, 30))
    interval = confidence_interval(outcomes if students_differ else outcomes.T)
    # One count of slack: with 2000 resamples a quantile that falls near a step of the distribution may miss it.
    np.testing.assert_allclose(np.array(interval) * 20, binom.ppf([0.025, 0.975], 20, 0.5), atol=1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(7)
    covered = naive = 0
    for _ in range(100):
        students, examples = random.normal(0, 0.1, (12, 1)), random.normal(0, 0.3, (1, 150))
        outcomes = random.random((12, 150)) < 0.5 + students + examples
        low, high = confidence_interval(outcomes)
        covered += low <= 0.5 <= high
        naive += abs(outcomes.mean() - 0.5) < 1.96 * np.sqrt(0.25 / outcomes.size)
    assert covered >= 88
    assert naive < 75


def test_pairing_cancels_what_both_arms_share():
    random = np.random.default_rng(0)
    baseline = random.random((3, 1)) + random.random((1, 500)) < 1
    better = baseline | (random.random((3, 500)) < 0.1)
    difference, low, high = paired_difference(better, baseline)
    assert difference == pytest.approx(better.mean() - baseline.mean())
    assert 0 < low < difference < high
    unpaired = np.diff(confidence_interval(better)) + np.diff(confidence_interval(baseline))
    assert high - low < 0.5 * unpaired


def test_differences_are_antisymmetric_and_zero_with_oneself():
    a, b = np.random.default_rng(1).random((2, 4, 50)) < 0.5
    difference, low, high = paired_difference(a, b)
    # The resamples are the same, so swapping the arms mirrors them.
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low))
    assert paired_difference(a, a) == (0, 0, 0)


def test_unusable_outcomes_are_refused():
    with pytest.raises(UnusableInput, match="same students and examples"):
        paired_difference(np.ones((2, 5), bool), np.ones((3, 5), bool))
    for shape in ((5,), (0, 5), (2, 0)):
        with pytest.raises(UnusableInput, match="expected outcomes"):
            confidence_interval(np.ones(shape, bool))
