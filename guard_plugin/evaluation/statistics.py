"""Uncertainty of accuracies that were measured on several students and many examples.

Both the students (seeds) and the examples are samples, and the outcomes of one student, or on one example, hang
together. The variance of the mean is estimated as the sum of two parts: the spread between students over their number,
and the spread between examples over theirs. (It counts the interaction of student and example twice, which makes it
slightly too large.) The interval is Student's t with the degrees of freedom of Welch and Satterthwaite: with few
students it is wide, because their spread is hardly known. With one student only the examples' spread is seen, and the
interval is far too narrow for another student. Where all outcomes agree, the interval is Wilson's for as many examples,
since a few hundred of them prove neither 0 nor 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from guard_plugin.errors import UnusableInput

__all__ = ["confidence_interval", "paired_difference"]

# The 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.959964


def confidence_interval(outcomes: NDArray[np.bool_]) -> tuple[float, float]:
    """Compute the 95 % confidence interval of the mean outcome.

    Args:
        outcomes: Shape (students, examples): whether the student was right on the example.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        UnusableInput: If the array has another shape or is empty.

    Example:
        >>> low, high = confidence_interval(np.arange(100)[None] < 80)  # one student, right on 80 of 100
        >>> round(low, 3), round(high, 3)
        (0.72, 0.88)
    """
    values = _two_way(outcomes)
    mean, half = float(values.mean()), _half_width(values)
    if half == 0:
        half = _unseen(values.shape[1])
    return max(mean - half, 0.0), min(mean + half, 1.0)


def paired_difference(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Compute the difference of two accuracies, mean of a - mean of b, with its 95 % confidence interval.

    Args:
        a: Shape (students, examples).
        b: The same shape: the same examples, and students of the same seeds, in the same order. What both arms share
            (an example's difficulty, a seed's luck) cancels in the pairs.

    Returns:
        Difference, lower and upper bound, in [-1, 1].

    Raises:
        UnusableInput: If the shapes differ or the arrays are empty.

    Example:
        >>> examples = np.arange(100)[None]
        >>> [round(value, 3) for value in paired_difference(examples < 80, examples < 70)]
        [0.1, 0.04, 0.16]
    """
    if a.shape != b.shape:
        raise UnusableInput(
            f"a paired difference needs the same students and examples on both sides, got shapes {a.shape} and "
            f"{b.shape}: run both benchmarks with the same --seeds and --n-examples"
        )
    values = _two_way(a) - _two_way(b)
    difference = float(values.mean())
    half = _half_width(values) or _unseen(values.shape[1])
    return difference, max(difference - half, -1.0), min(difference + half, 1.0)


def _two_way(outcomes: NDArray[np.bool_]) -> NDArray[np.float64]:
    if outcomes.ndim != 2 or not outcomes.size:
        raise UnusableInput(f"expected outcomes of shape (students >= 1, examples >= 1), got {outcomes.shape}")
    return outcomes.astype(np.float64)


def _half_width(values: NDArray[np.float64]) -> float:
    """Compute half the width of the interval of the mean over both axes; 0 where nothing varies."""
    parts = [(_variance_of_mean(values.mean(axis=1 - axis)), values.shape[axis] - 1) for axis in (0, 1)]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / df for part, df in parts if df)
    return _quantile(freedom) * math.sqrt(variance)


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0


def _quantile(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t, for the next lower whole number of degrees of freedom."""
    whole = math.floor(freedom + 1e-9)
    # Beyond the table, the first two terms of the expansion are exact to 1e-3.
    return _T[whole - 1] if whole <= len(_T) else _NORMAL + (_NORMAL**3 + _NORMAL) / (4 * whole)


def _unseen(examples: int) -> float:
    """Compute Wilson's bound of a share that was 0 in all of so many examples."""
    return _NORMAL**2 / (examples + _NORMAL**2)
