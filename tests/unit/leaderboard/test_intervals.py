import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from guard_plugin.evaluation.statistics import confidence_interval
from guard_plugin.leaderboard.intervals import narrowest_interval


def outcomes(random, students, examples):
    """Students that differ more or less from each other, on examples that do."""
    levels, difficulties, method = random.choice([0, 0.05, 0.3, 2], 3) * (1, 3, 1)
    latent = random.normal(0, levels, (students, 1)) + random.normal(0, difficulties, examples)
    noise = random.normal(0, random.choice([0.01, 1]), (students, examples))
    return random.normal(0, 1 + method) + latent + noise > 0


def test_every_interval_of_ours_holds_the_narrowest():
    random = np.random.default_rng(0)
    for _ in range(2000):
        sets, per_set, examples = random.integers(1, 7), random.integers(1, 4), int(random.choice([1, 2, 5, 50, 300]))
        of = [k % sets for k in range(sets * per_set)]
        correct = outcomes(random, len(of), examples)
        told, accuracies = confidence_interval(correct, of), correct.mean(axis=1)
        rows = [accuracies[np.equal(of, one)].mean() for one in range(sets)] if sets > 1 else accuracies
        low, high = narrowest_interval(rows, examples)
        assert told.low <= low + 1e-12 and high - 1e-12 <= told.high
        assert told.low < told.value < told.high or told.value in (0, 1)


@pytest.mark.parametrize("right", [0, 1, 300, 999, 1000])
def test_of_one_student_the_interval_is_known(right):
    told = confidence_interval(np.arange(1000)[None] < right, [0])
    assert narrowest_interval([right / 1000], 1000) == pytest.approx((told.low, told.high), abs=1e-12)


def test_where_all_outcomes_agree_the_interval_is_known():
    assert narrowest_interval([1.0, 1.0], 300) == pytest.approx(
        (binomtest(300, 300).proportion_ci(method="wilson").low, 1)
    )


def test_the_spread_of_four_sets_alone_gives_students_t():
    """Near 0.5, Wilson's interval is nearly that of t."""
    accuracies = [0.5, 0.502, 0.504, 0.506]
    of_t = ttest_1samp(accuracies, 0).confidence_interval()
    assert narrowest_interval(accuracies, 10_000) == pytest.approx((of_t.low, of_t.high), abs=1e-5)


def test_examples_narrow_the_interval_of_two_sets_to_the_bound():
    """Two sets whose examples' part is C = R (t - 2 z) / z."""
    t, z, spread = 12.706205, 1.959964, 0.02**2 / 4
    parts = np.linspace(0, 20 * spread, 100_000)
    least = ((spread * t + parts * z) / np.sqrt(spread + parts)).min()
    wilson = least**2 / (0.51 * 0.49)
    low, high = narrowest_interval([0.5, 0.52], 10_000)
    assert high - low == pytest.approx(2 * np.sqrt(0.51 * 0.49 * wilson + wilson**2 / 4) / (1 + wilson), rel=1e-5)


def test_version_01_had_the_mean_in_the_middle():
    low, high = narrowest_interval([0.9, 0.92, 0.94], 100, is_wilsons=False)
    half = 1.959964 * np.std([0.9, 0.92, 0.94], ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((0.92 - half, 0.92 + half))
    assert narrowest_interval([1.0, 0.99], 100, is_wilsons=False)[1] == 1
