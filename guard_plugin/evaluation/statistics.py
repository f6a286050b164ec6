"""Uncertainty of accuracies that were measured on a few distilled sets, their students and many examples.

The distilled set is the unit: students of one set hang together, so they are averaged first, and what a set counts does
not depend on how many students it has. Sets and examples are then two crossed samples (rows and columns of a table of
means). The variance of the grand mean is that of the sets' means over their number, plus what the examples add to it:
the spread between examples over their number, less the interaction of set and example, which the sets' means contain
already. The critical value is Cochran and Cox's (Experimental Designs, 1950): the mean of Student's quantiles of the
parts, weighted by their variances. It is exact where one part is alone, and where the parts mix it covers 94 to 98 %
for any number of sets; Welch's and Satterthwaite's falls to 87 % for two (docs/intervals.md). The interval is at least
as wide as if sets did not differ beyond the interaction, whose variance is known from many examples.

Of one set alone, what other sets would give is not seen. The interval is then for other students of that set, and
other examples; the students take the place of the sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.records import Outcomes
from guard_plugin.optional import require

__all__ = [
    "Estimate",
    "confidence_interval",
    "normal_quantile",
    "paired_difference",
    "require_scipy",
    "students_quantile",
    "wilson_interval",
]

_UPPER = 0.975
_ROUNDING = 1e-20  # variances below are rounding errors: one outcome of 10^9 makes a larger one

_Table = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with its 95 % confidence interval.

    Args:
        value: The mean over sets of the mean over their students.
        low: Lower bound.
        high: Upper bound.
        shares: The parts of the interval's width that come from "sets", "students" and "examples"; they sum to 1. With
            one student per set, the students' part is within that of the sets. Of one set there is no part of sets.
        limited_by: Of what more would narrow the interval most: the largest share; "sets" where there is one only.
    """

    value: float
    low: float
    high: float
    shares: dict[str, float]
    limited_by: str

    def of(self, unit: str) -> Estimate:
        """Return this estimate with another word than "sets" for what each has students of its own."""
        shares = {unit if name == "sets" else name: share for name, share in self.shares.items()}
        return self._replace(shares=shares, limited_by=unit if self.limited_by == "sets" else self.limited_by)


class _Part(NamedTuple):
    """A part of a mean's variance, and the degrees of freedom with which it is known."""

    variance: float
    freedom: int


def require_scipy() -> Any:
    """Return scipy.special; raise UnusableInput if scipy is not installed."""
    return require("scipy.special", needed_by="a confidence interval")


def confidence_interval(outcomes: Outcomes, sets: Sequence[int]) -> Estimate:
    """Estimate the mean outcome.

    The interval is Wilson's, with the effective number of examples that the variance implies. Where all outcomes agree,
    that is the number of examples, since a few hundred of them prove neither 0 nor 1.

    Args:
        outcomes: Shape (students, examples): whether the student was right on the example.
        sets: The number of the distilled set of each student.

    Returns:
        The mean and its bounds, in [0, 1].

    Raises:
        UnusableInput: If the array has another shape or is empty, or there is not one set for each student.

    Example:
        >>> one = confidence_interval(np.arange(100)[None] < 80, [0])  # one student, right on 80 of 100
        >>> round(one.low, 3), round(one.high, 3)
        (0.709, 0.868)
    """
    table = _by_set(outcomes, sets)
    mean = float(table.mean())
    half, shares = _half_width([table], _students_part(outcomes, sets), one_set=_count(sets) == 1)
    return Estimate(mean, *wilson_interval(mean, half, table.shape[1]), shares, _limit(shares, sets))


def wilson_interval(mean: float, half: float, examples: int) -> tuple[float, float]:
    """Return Wilson's bounds for a mean, from half the width of the interval around it.

    Where all outcomes agree, or half the width is 0, they are those of so many examples.
    """
    wilson = half**2 / (mean * (1 - mean)) if half and 0 < mean < 1 else _unseen(examples)
    centre = (mean + wilson / 2) / (1 + wilson)
    half = math.sqrt(mean * (1 - mean) * wilson + wilson**2 / 4) / (1 + wilson)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def paired_difference(
    a: Outcomes, b: Outcomes, sets_a: Sequence[int], sets_b: Sequence[int], *, pair_sets: bool = True
) -> Estimate:
    """Estimate the difference of two accuracies, mean of a - mean of b, on the same examples.

    Examples are paired, so that what both arms share, such as an example's difficulty, cancels. Sets are paired in
    their order (the luck of a seed that both arms have in common cancels too) if there are equally many and
    ``pair_sets``; if not, their spread is added up over the arms. So are students, where both arms have one set.

    Args:
        a: Shape (students, examples).
        b: Shape (students, examples), for the same examples.
        sets_a: The number of the distilled set of each student in ``a``.
        sets_b: The same for ``b``.
        pair_sets: Whether the sets of both arms have seeds in common, in their order. Where they do not, which set is
            subtracted from which is arbitrary, and so would be the interval.

    Returns:
        The difference and its bounds, in [-1, 1].

    Raises:
        UnusableInput: If the examples differ in number, an array is empty, or there is not one set for each student.

    Example:
        >>> examples = np.arange(100)[None]
        >>> one = paired_difference(examples < 80, examples < 70, [0], [0])
        >>> [round(bound, 3) for bound in (one.value, one.low, one.high)]
        [0.1, 0.04, 0.16]
    """
    ours, theirs = _by_set(a, sets_a), _by_set(b, sets_b)
    if ours.shape[1] != theirs.shape[1]:
        raise UnusableInput(
            f"a paired difference needs the same examples on both sides, got {ours.shape[1]} and {theirs.shape[1]}: "
            f"run both benchmarks with the same --n-examples"
        )
    alone = [_count(sets) == 1 for sets in (sets_a, sets_b)]
    paired = pair_sets and len(ours) == len(theirs) and alone[0] == alone[1]
    students = _students_part(a, sets_a) + _students_part(b, sets_b)
    half, shares = _half_width([ours - theirs] if paired else [ours, -theirs], students, one_set=any(alone))
    if not half:
        bound = _unseen(ours.shape[1])
        half = bound / (1 + bound)  # Wilson's bound of a share that was 0 in all examples
    difference = float(ours.mean() - theirs.mean())
    fewer = min(sets_a, sets_b, key=_count)
    return Estimate(
        difference, max(difference - half, -1.0), min(difference + half, 1.0), shares, _limit(shares, fewer)
    )


def _count(sets: Sequence[int]) -> int:
    return len(set(sets))


def _by_set(outcomes: Outcomes, sets: Sequence[int]) -> _Table:
    """Average the students of each set, shape (sets, examples); of one set alone, return its students."""
    if outcomes.ndim != 2 or not outcomes.size:
        raise UnusableInput(f"expected outcomes of shape (students >= 1, examples >= 1), got {outcomes.shape}")
    if len(sets) != len(outcomes):
        raise UnusableInput(f"expected a distilled set for each of {len(outcomes)} students, got {len(sets)}")
    values = outcomes.astype(np.float64)
    if _count(sets) == 1:
        return values
    members = np.equal.outer(np.unique(sets), sets)
    table: _Table = members / members.sum(axis=1, keepdims=True) @ values
    return table


def _students_part(outcomes: Outcomes, sets: Sequence[int]) -> float:
    """Estimate the variance of the mean over sets that comes from students, where sets have several."""
    accuracies = outcomes.mean(axis=1)
    of_sets = [accuracies[np.equal(sets, one)] for one in set(sets)]
    return sum(_variance_of_mean(of) for of in of_sets) / len(of_sets) ** 2


def _half_width(arms: Sequence[_Table], students: float, *, one_set: bool) -> tuple[float, dict[str, float]]:
    """Return half the width of the interval of the sum of the arms' means, and the shares of its parts.

    Half the width is 0 where nothing varies. Of the sets' part, the students account for what it would be with many
    sets; that the spread of few sets is hardly known is on the sets' account.
    """
    rows, examples, interaction = _parts(arms)
    variance = sum(part.variance for part in (*rows, examples))
    if variance + interaction.variance < _ROUNDING:
        return 0.0, {"examples": 1.0}
    error = math.sqrt(variance) or 1.0
    by_examples = _weighted(examples) / error
    # Sets that happen to agree do not prove that they do: they hold the interaction, which is known better.
    least = students_quantile(interaction.freedom) * math.sqrt(interaction.variance + examples.variance)
    by_rows = max(sum(map(_weighted, rows)) / error, least - by_examples)
    by_students = by_rows if one_set else min(students * normal_quantile() / error, by_rows)
    width = by_rows + by_examples
    parts = {"sets": by_rows - by_students} if not one_set else {}
    parts |= {"students": by_students} if by_students else {}
    parts["examples"] = by_examples
    return width, {name: part / width for name, part in parts.items()}


def _parts(arms: Sequence[_Table]) -> tuple[list[_Part], _Part, _Part]:
    """Split the variance of the sum of the arms' means into what each arm's rows add to it, and what the examples do.

    This is the analysis of variance of two crossed random factors: the mean square of the rows holds the interaction,
    and so does that of the columns, from which it is taken away (the least that can be left is 0). The last part is
    what the rows' parts hold of the interaction.
    """
    rows, n_examples = [], arms[0].shape[1]
    by_example = np.sum([arm.mean(axis=0) for arm in arms], axis=0)
    examples, interaction = _variance_of_mean(by_example), _Part(0.0, 0)
    for arm in arms:
        n = len(arm)
        if n > 1:
            by_row = arm.mean(axis=1)
            rows.append(_Part(_variance_of_mean(by_row), n - 1))
            left, freedom = arm - by_row[:, None] - arm.mean(axis=0) + arm.mean(), (n - 1) * max(n_examples - 1, 1)
            held = float((left**2).sum()) / (freedom * arm.size)
            interaction = _Part(interaction.variance + held, interaction.freedom + freedom)
    return rows, _Part(max(examples - interaction.variance, 0.0), n_examples - 1), interaction


def _variance_of_mean(values: _Table) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0


def _weighted(part: _Part) -> float:
    """Return the variance times Student's quantile: divided by the standard error, its part of half the width."""
    return part.variance * students_quantile(part.freedom) if part.variance else 0.0


def students_quantile(freedom: int) -> float:
    """Return Student's 97.5 % quantile; 0 without any degree of freedom, where there is no variance."""
    return float(require_scipy().stdtrit(freedom, _UPPER)) if freedom else 0.0


def normal_quantile() -> float:
    """Return the normal distribution's 97.5 % quantile."""
    return float(require_scipy().ndtri(_UPPER))


def _limit(shares: dict[str, float], sets: Sequence[int]) -> str:
    return "sets" if _count(sets) == 1 else max(shares, key=lambda name: shares[name])


def _unseen(examples: int) -> float:
    """Return the squared normal quantile over so many examples, from which Wilson's bounds are computed."""
    return normal_quantile() ** 2 / examples
