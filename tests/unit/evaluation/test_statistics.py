import numpy as np
import pytest
from scipy.stats import binomtest, t, ttest_1samp

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.statistics import confidence_interval, paired_difference

EXAMPLES = 1000


def first(*counts, examples=EXAMPLES):
    """Per student, right on the first so many examples."""
    return np.arange(examples) < np.array(counts)[:, None]


def simulated(random, sets, students, sd_sets, sd_students, sd_method, difficulty):
    """Students that are right where latent draws are above 0, as in examples/simulate_intervals.py."""
    shape = (sets, students, len(difficulty))
    latent = random.normal(0, sd_sets, (sets, 1, 1)) + random.normal(0, sd_students, (sets, students, 1))
    noise = random.standard_normal(shape, dtype=np.float32)
    return (latent + random.normal(0, sd_method, len(difficulty)) + difficulty + noise > 0).reshape(-1, shape[2])


def in_turn(sets, students):
    return [k // students for k in range(sets * students)]


@pytest.mark.parametrize("right", [3, 300, 998])
def test_one_student_has_wilsons_interval(right):
    one, wilson = confidence_interval(first(right), [0]), binomtest(right, EXAMPLES).proportion_ci(method="wilson")
    assert one.value == right / EXAMPLES
    assert (one.low, one.high) == pytest.approx((wilson.low, wilson.high), abs=2e-4)  # Student's quantile is larger


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("sets", [[0, 0, 0], [0, 1, 2], [0, 0, 1]])
def test_a_few_hundred_examples_prove_neither_0_nor_1(always, sets):
    one, bound = confidence_interval(np.full((3, 300), always), sets), proportion_bound(300)
    assert (one.low, one.high) == pytest.approx((1 - bound, 1) if always else (0, bound))
    assert one.shares == {"examples": 1.0}


def proportion_bound(n):
    """Wilson's upper bound for 0 of n, by scipy."""
    return binomtest(0, n).proportion_ci(method="wilson").high


@pytest.mark.parametrize("counts", [(300, 320), (300, 320, 310), (300, 400, 350, 300, 290)])
def test_where_only_sets_differ_the_difference_is_students_t_of_their_means(counts):
    """Which examples a set gets right is drawn at random, so that examples add next to nothing of their own."""
    random = np.random.default_rng(0)
    a = np.stack([random.permutation(np.arange(EXAMPLES) < count) for count in counts])
    one = paired_difference(a, np.zeros_like(a), range(len(counts)), range(len(counts)))
    oracle = ttest_1samp(a.mean(axis=1), 0).confidence_interval()
    assert one.value == pytest.approx(a.mean())
    assert (one.low, one.high) == pytest.approx((oracle.low, oracle.high), rel=0.2)
    assert one.shares["sets"] > 0.7 and one.limited_by == "sets"


@pytest.mark.parametrize("n", [20, 200])
def test_where_only_examples_differ_the_difference_is_students_t_over_them(n):
    a = np.tile(np.arange(n) % 3 == 0, (4, 1))
    one = paired_difference(a, np.zeros_like(a), [0, 0, 1, 1], [0, 0, 1, 1])
    oracle = ttest_1samp(a[0].astype(float), 0).confidence_interval()
    assert (one.low, one.high) == pytest.approx((oracle.low, oracle.high))
    assert one.shares == {"sets": 0.0, "examples": 1.0} and one.limited_by == "examples"


def test_the_interval_is_cochrans_of_the_analysis_of_variance():
    """The mean squares of the two-way layout, by loops."""
    table = np.random.default_rng(3).random((3, 40)) < np.linspace(0.1, 0.9, 40)
    other = np.random.default_rng(4).random((3, 40)) < 0.5
    values, (n, m) = table.astype(float) - other, table.shape
    grand, rows, columns = values.mean(), values.mean(axis=1), values.mean(axis=0)
    ms_rows = m * sum((rows[i] - grand) ** 2 for i in range(n)) / (n - 1)
    ms_columns = n * sum((columns[j] - grand) ** 2 for j in range(m)) / (m - 1)
    rest = sum((values[i, j] - rows[i] - columns[j] + grand) ** 2 for i in range(n) for j in range(m))
    ms_rest = rest / ((n - 1) * (m - 1))
    by_rows, by_columns = ms_rows / (n * m), (ms_columns - ms_rest) / (n * m)
    assert by_columns > 0
    quantiles = by_rows * t.ppf(0.975, n - 1) + by_columns * t.ppf(0.975, m - 1)
    one = paired_difference(table, other, range(3), range(3))
    assert one.high - one.value == pytest.approx(quantiles / np.sqrt(by_rows + by_columns))


@pytest.mark.parametrize("shared", [0, 2, 4])
def test_sets_that_happen_to_agree_leave_the_interaction(shared):
    """Two sets are each right on 9 of 60 examples, of which they share some; the mean squares again by loops."""
    table = np.zeros((2, 60), dtype=np.bool_)
    table[0, :9], table[1, 9 - shared : 18 - shared] = True, True
    values, mean = table.astype(float), table.mean()
    rest = [values[i, j] - values[:, j].mean() for i in range(2) for j in range(60)]  # both rows have the same mean
    interaction = sum(one**2 for one in rest) / 59 / 120
    examples = max(2 * sum((values[:, j].mean() - mean) ** 2 for j in range(60)) / 59 / 120 - interaction, 0)
    half = t.ppf(0.975, 59) * np.sqrt(interaction + examples)
    other = np.zeros_like(table)
    difference = paired_difference(table, other, [0, 1], [0, 1])
    assert difference.high - difference.value == pytest.approx(half)
    flips = binomtest(18, 120).proportion_ci(method="wilson")
    alone = confidence_interval(table, [0, 1])
    assert alone.high - alone.low >= 0.9 * (flips.high - flips.low)


def test_an_interval_is_seldom_narrower_than_that_of_independent_outcomes():
    random = np.random.default_rng(9)
    narrow = 0
    for _ in range(300):
        table = random.random((2, 50)) < random.beta(2, 2, 50)
        flips = binomtest(int(table.sum()), 100).proportion_ci(method="wilson")
        one = confidence_interval(table, [0, 1])
        narrow += one.high - one.low < 0.9 * (flips.high - flips.low)
    assert narrow == 0


def test_more_students_of_the_same_answers_change_nothing():
    """They are averaged within their set, also where one set has more of them than another."""
    random = np.random.default_rng(5)
    a, b = random.random((2, 3, 100)) < 0.6
    alone = paired_difference(a, b, range(3), range(3))
    of = [0, 1, 1, 1, 2, 2]
    assert paired_difference(a[of], b[of], of, of)[:3] == pytest.approx(alone[:3])
    assert confidence_interval(a[of], of)[:3] == pytest.approx(confidence_interval(a, range(3))[:3])


def test_sets_are_told_by_their_number_in_any_order():
    a = np.random.default_rng(6).random((6, 100)) < 0.6
    order = [5, 0, 3, 1, 4, 2]
    of = np.array([0, 1, 2, 0, 1, 2])
    assert confidence_interval(a, of)[:3] == pytest.approx(confidence_interval(a[order], of[order])[:3])


@pytest.mark.parametrize(("sets", "students"), [(2, 5), (5, 1)])
def test_the_intervals_cover_the_truth_as_often_as_they_say(sets, students):
    """Sets and students differ as much as in the simulation of docs/intervals.md, which is larger."""
    random, of = np.random.default_rng(7), in_turn(sets, students)
    covered = zero = 0
    for _ in range(200):
        difficulty = random.normal(0, 1, EXAMPLES)
        a, b = (simulated(random, sets, students, 0.05, 0.05, 0, difficulty) for _ in "ab")
        alone, one = confidence_interval(a, of), paired_difference(a, b, of, of)
        covered += alone.low <= 0.5 <= alone.high
        zero += one.low <= 0 <= one.high
    # Of 200, 190 are due; 180 is more than 3 standard deviations away.
    assert covered >= 180 and zero >= 180


def test_the_interaction_counts_once():
    """Without any effect of sets, the former interval was 1.4 times as wide as the estimate's spread demands."""
    random, of = np.random.default_rng(8), range(10)
    widths, values = [], []
    for _ in range(100):
        difficulty = random.normal(0, 1, EXAMPLES)
        a, b = (simulated(random, 10, 1, 0, 0, 0, difficulty) for _ in "ab")
        one = paired_difference(a, b, of, of)
        widths.append(one.high - one.low)
        values.append(one.value)
    assert np.mean(widths) / (2 * t.ppf(0.975, 9) * np.std(values)) == pytest.approx(1, abs=0.2)


def test_pairing_cancels_what_both_arms_share():
    random = np.random.default_rng(0)
    baseline = random.random((12, 1)) + random.random((1, 500)) < 1
    better = baseline | (random.random((12, 500)) < 0.1)
    one = paired_difference(better, baseline, range(12), range(12))
    assert one.value == pytest.approx(better.mean() - baseline.mean())
    assert 0 < one.low < one.value < one.high
    alone = [confidence_interval(arm, range(12)) for arm in (better, baseline)]
    assert one.high - one.low < 0.5 * sum(arm.high - arm.low for arm in alone)


def test_arms_with_other_numbers_of_sets_are_paired_by_example_alone():
    random = np.random.default_rng(1)
    a, b = (np.stack([random.permutation(first(count)[0]) for count in counts]) for counts in ((400, 450), (300,) * 4))
    b[0, :40] = ~b[0, :40]
    one = paired_difference(a, b, range(2), range(4))
    parts = [(arm.mean(axis=1).var(ddof=1) / len(arm), t.ppf(0.975, len(arm) - 1)) for arm in (a, b)]
    half = sum(part * quantile for part, quantile in parts) / np.sqrt(sum(part for part, _ in parts))
    assert one.value == pytest.approx(a.mean() - b.mean())
    assert one.high - one.value == pytest.approx(half, rel=0.2)  # but for what the examples add
    mirrored = paired_difference(b, a, range(4), range(2))
    assert mirrored[:3] == pytest.approx((-one.value, -one.high, -one.low))


def test_unpaired_sets_give_one_interval_in_any_order():
    """It is the one of arms with other numbers of sets: each arm has its own spread."""
    random = np.random.default_rng(2)
    a, b = (
        np.stack([random.permutation(first(n)[0]) for n in counts]) for counts in ((400, 450, 530), (300, 340, 310))
    )
    one, other, paired, swapped = (
        paired_difference(a, arm, range(3), range(3), pair_sets=pair_sets)
        for pair_sets in (False, True)
        for arm in (b, b[[1, 2, 0]])
    )
    assert one[:3] == pytest.approx(other[:3])
    assert paired.high != pytest.approx(swapped.high)
    variance = sum(arm.mean(axis=1).var(ddof=1) / 3 for arm in (a, b))
    assert one.high - one.value == pytest.approx(t.ppf(0.975, 2) * np.sqrt(variance), rel=0.05)


def test_differences_are_antisymmetric_and_zero_with_oneself():
    a, b = np.random.default_rng(1).random((2, 4, 50)) < 0.5
    one = paired_difference(a, b, range(4), range(4))
    assert paired_difference(b, a, range(4), range(4))[:3] == pytest.approx((-one.value, -one.high, -one.low))
    bound = proportion_bound(50)
    assert paired_difference(a, a, range(4), range(4))[:3] == pytest.approx((0, -bound, bound))


@pytest.mark.parametrize(
    ("sets", "students", "spreads", "limit"),
    [
        (5, 4, (0.5, 0.05, 0), "sets"),
        (5, 4, (0.05, 0.5, 0), "students"),
        (20, 4, (0, 0, 1), "examples"),
        (2, 4, (0.05, 0.05, 0), "sets"),  # their spread is hardly known, whatever it is
        (1, 8, (0.05, 0.5, 0), "sets"),  # what is not seen at all
    ],
)
def test_what_limits_an_interval_is_named(sets, students, spreads, limit):
    random, of = np.random.default_rng(2), in_turn(sets, students)
    difficulty = random.normal(0, 1, EXAMPLES)
    a, b = (simulated(random, sets, students, *spreads, difficulty) for _ in "ab")
    one = paired_difference(a, b, of, of)
    assert one.limited_by == limit and sum(one.shares.values()) == pytest.approx(1)
    assert ("sets" in one.shares) == (sets > 1)
    assert one.of("networks").limited_by == ("networks" if limit == "sets" else limit)


def test_with_one_student_per_set_the_students_part_is_within_the_sets():
    a = simulated(np.random.default_rng(2), 5, 1, 0.1, 0.5, 0, np.zeros(EXAMPLES))
    assert confidence_interval(a, range(5)).shares.keys() == {"sets", "examples"}


def test_of_one_set_the_students_are_what_varies():
    random = np.random.default_rng(9)
    a = np.stack([random.permutation(first(count)[0]) for count in (300, 350, 320)])
    one = paired_difference(a, np.zeros_like(a), [0] * 3, [0] * 3)
    oracle = ttest_1samp(a.mean(axis=1), 0).confidence_interval()
    assert (one.low, one.high) == pytest.approx((oracle.low, oracle.high), rel=0.1)
    # One set against several: nothing is paired but examples.
    mixed = paired_difference(a, np.zeros_like(a), [0] * 3, range(3))
    assert mixed.limited_by == "sets" and mixed.value == pytest.approx(one.value)


def test_unusable_outcomes_are_refused():
    with pytest.raises(UnusableInput, match="same examples on both sides, got 5 and 4: .*--n-examples"):
        paired_difference(np.ones((2, 5), bool), np.ones((2, 4), bool), [0, 1], [0, 1])
    with pytest.raises(UnusableInput, match="a distilled set for each of 2 students, got 3"):
        confidence_interval(np.ones((2, 5), bool), [0, 1, 2])
    for shape in ((5,), (0, 5), (2, 0)):
        with pytest.raises(UnusableInput, match="expected outcomes"):
            confidence_interval(np.ones(shape, bool), [0] * shape[0])
