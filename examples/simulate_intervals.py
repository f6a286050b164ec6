"""How often do the benchmark's 95 % intervals hold the true value? Simulated, where the truth is known.

    python examples/simulate_intervals.py --repeats 4000

A student is right on an example where the sum of these normal draws is above 0: the method's level, the example's
difficulty (one draw for all), the method's own difficulty with the example, the set's level (sd `sets`), the set's own
difficulty with the example, the student's level (sd `students`), and noise of sd 1. Sets and students of both arms are
drawn independently. Printed per scenario, numbers of sets and of students per set: the share of intervals that hold
the true difference (paired by set and example) and the true accuracy of one arm, and their mean width over 2 * 1.96
standard deviations of the estimate. "Before" is the estimator up to version 0.1: every student counts, and the
interaction counts twice. Of one set, the second table says how often the interval holds what it is for: the accuracy
of further students of this very set. The third table is computed, not simulated: the least and the largest coverage of
three critical values, over all mixtures of a sets' part that is estimated and an examples' part that is known.
"""

from __future__ import annotations

import argparse
import platform
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import sqrt
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import chi2, norm
from tqdm import tqdm

from guard_plugin.evaluation.statistics import confidence_interval, paired_difference

SETS, STUDENTS = (1, 2, 3, 5, 10), (1, 2, 5)
UPPER = 0.975

Outcomes = NDArray[np.bool_]


@dataclass(frozen=True)
class Scenario:
    """The standard deviations of the draws, and the true accuracies of both methods."""

    sets: float = 0.05
    students: float = 0.05
    difficulty: float = 1.0
    method_by_example: float = 0.0
    set_by_example: float = 0.0
    accuracies: tuple[float, float] = (0.5, 0.5)

    @property
    def levels(self) -> list[float]:
        """The levels that give the methods these accuracies."""
        return [float(norm.ppf(accuracy)) * self._spread(self.sets, self.students) for accuracy in self.accuracies]

    def accuracy_of_set(self, level: float) -> float:
        """The accuracy over all students of a set, given the level of method and set together."""
        return float(norm.cdf(level / self._spread(self.students)))

    def _spread(self, *more: float) -> float:
        parts = (1.0, self.difficulty, self.method_by_example, self.set_by_example, *more)
        return sqrt(sum(part**2 for part in parts))


SCENARIOS = {
    "sets and students differ (sd 0.05 each)": Scenario(),
    "sets do not differ": Scenario(sets=0),
    "neither sets nor students differ": Scenario(sets=0, students=0),
    "examples dominate": Scenario(sets=0.01, students=0.01, difficulty=2, method_by_example=1),
    "sets and methods have examples of their own": Scenario(method_by_example=0.5, set_by_example=0.5),
    "accuracies of 1 and 3 %": Scenario(accuracies=(0.01, 0.03)),
    "accuracies of 99 and 97 %": Scenario(accuracies=(0.99, 0.97)),
}


class Drawn(NamedTuple):
    """One simulated arm: outcomes, shape (sets * students, examples), and the level of its first set."""

    outcomes: Outcomes
    level: float


class Cell(NamedTuple):
    """Coverage in percent, and width over the ideal, of one estimator."""

    coverage: float
    width: float

    def __str__(self) -> str:
        """Write one cell of the table."""
        return f"{self.coverage:.1f} ({self.width:.2f})"


def main() -> None:
    """Simulate and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", action="append", choices=tuple(SCENARIOS), help="only this; may be repeated")
    given = parser.parse_args()
    chosen = {name: SCENARIOS[name] for name in given.scenario or SCENARIOS}
    print(
        f"{given.examples} examples, {given.repeats} repeats per row, seed {given.seed}; numpy {np.__version__}, "
        f"scipy {scipy.__version__}, Python {platform.python_version()}, {platform.machine()}.\n"
    )
    print(
        "| scenario | sets x students | difference, before | now | sets unpaired | accuracy, before | now |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, scenario in chosen.items():
        for sets, students in tqdm(list(product(SETS, STUDENTS)), name, leave=False):
            cells = " | ".join(map(str, _cells(scenario, sets, students, given)))
            print(f"| {name} | {sets} x {students} | {cells} |", flush=True)
    print("\n| scenario | students of one set | accuracy of the method | accuracy of this set |\n|---|---|---|---|")
    for name, scenario in chosen.items():
        for students in tqdm(STUDENTS, name, leave=False):
            print(f"| {name} | {students} | {' | '.join(map(str, _one_set(scenario, students, given)))} |", flush=True)
    print("\n| sets | Cochran and Cox | Welch and Satterthwaite | sum of squares |\n|---|---|---|---|")
    for sets in SETS[1:]:
        print(f"| {sets} | {' | '.join(_range_of_coverage(sets))} |")


def _cells(scenario: Scenario, sets: int, students: int, given: argparse.Namespace) -> Iterator[Cell]:
    """Simulate one row: difference before, now and with unpaired sets, accuracy before and now."""
    of = np.repeat(np.arange(sets), students).tolist()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for a, b in _pairs(scenario, sets, students, given):
        former = np.subtract(a.outcomes, b.outcomes, dtype=np.float64), a.outcomes.astype(np.float64)
        now = paired_difference(a.outcomes, b.outcomes, of, of), confidence_interval(a.outcomes, of)
        for target, values, estimate in zip(("difference", "accuracy"), former, now):
            half = _former_half_width(values)
            found.setdefault(f"{target}, before", []).append(
                (estimate.value, values.mean() - half, values.mean() + half)
            )
            found.setdefault(target, []).append(estimate[:3])
            if target == "difference":
                unpaired = paired_difference(a.outcomes, b.outcomes, of, of, pair_sets=False)
                found.setdefault("difference, unpaired", []).append(unpaired[:3])
    truths = {"difference": scenario.accuracies[0] - scenario.accuracies[1], "accuracy": scenario.accuracies[0]}
    for target, estimates in found.items():
        truth = truths[target.split(",")[0]]
        value, low, high = np.array(estimates).T
        ideal = 2 * float(norm.ppf(UPPER)) * value.std(ddof=1)
        yield Cell(100 * np.mean((low <= truth) & (truth <= high)), np.mean(high - low) / ideal)


def _one_set(scenario: Scenario, students: int, given: argparse.Namespace) -> tuple[str, str]:
    """Simulate an interval from one set: how often it holds the method's accuracy, and how often the set's."""
    hits = []
    for arm, _ in _pairs(scenario, 1, students, given):
        _, low, high, *_ = confidence_interval(arm.outcomes, [0] * students)
        hits.append([low <= true <= high for true in (scenario.accuracies[0], scenario.accuracy_of_set(arm.level))])
    method, this_set = 100 * np.mean(hits, axis=0)
    return f"{method:.1f}", f"{this_set:.1f}"


def _pairs(scenario: Scenario, sets: int, students: int, given: argparse.Namespace) -> Iterator[tuple[Drawn, Drawn]]:
    """Draw both arms, again and again."""
    random = np.random.default_rng([given.seed, zlib.crc32(repr(scenario).encode()), sets, students])
    levels = scenario.levels
    for _ in range(given.repeats):
        difficulty = random.normal(0, scenario.difficulty, given.examples)
        first, second = (_arm(random, scenario, level, difficulty, sets, students) for level in levels)
        yield first, second


def _arm(
    random: np.random.Generator,
    scenario: Scenario,
    level: float,
    difficulty: NDArray[np.float64],
    sets: int,
    students: int,
) -> Drawn:
    n = len(difficulty)
    by_set = level + random.normal(0, scenario.sets, (sets, 1, 1))
    by_student = random.normal(0, scenario.students, (sets, students, 1))
    by_example = by_set + difficulty + random.normal(0, scenario.method_by_example, n)
    if scenario.set_by_example:
        by_example = by_example + random.normal(0, scenario.set_by_example, (sets, 1, n))
    noise = random.standard_normal((sets, students, n), dtype=np.float32)
    outcomes = noise + by_student.astype(np.float32) > -by_example.astype(np.float32)
    return Drawn(outcomes.reshape(sets * students, n), float(by_set[0, 0, 0]))


def _range_of_coverage(sets: int) -> list[str]:
    """Compute the least and the largest coverage of each critical value, where the variance of the mean is 1."""
    freedom, draws = sets - 1, (np.arange(20_000) + 0.5) / 20_000
    estimated = chi2.ppf(draws, freedom) / freedom
    by_sets, by_examples = stdtrit(freedom, UPPER), float(norm.ppf(UPPER))
    covered = []
    for share in np.linspace(0, 1, 101)[1:-1]:
        rows, columns = share * estimated, 1 - share
        variance = rows + columns
        half_widths = (
            (rows * by_sets + columns * by_examples) / np.sqrt(variance),
            stdtrit(variance**2 / (rows**2 / freedom), UPPER) * np.sqrt(variance),
            np.sqrt(rows * by_sets**2 + columns * by_examples**2),
        )
        covered.append([100 * np.mean(2 * norm.cdf(half) - 1) for half in half_widths])
    return [f"{least:.1f} to {largest:.1f}" for least, largest in zip(np.min(covered, axis=0), np.max(covered, axis=0))]


def _former_half_width(values: NDArray[np.float64]) -> float:
    """Half the width of the interval up to version 0.1, of a mean over students and examples."""
    parts = [(values.mean(axis=1 - axis).var(ddof=1) / n, n - 1) for axis, n in enumerate(values.shape) if n > 1]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    return float(stdtrit(int(freedom + 1e-9), UPPER)) * sqrt(variance)


if __name__ == "__main__":
    main()
