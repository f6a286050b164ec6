"""Uncertainty of accuracies that were measured on several students and many examples.

Both the students (seeds) and the examples are samples, and the outcomes of one student, or on one example, hang
together. The pigeonhole bootstrap (Owen, "The pigeonhole bootstrap", 2007) resamples students and examples
independently, with replacement. It is slightly conservative: the variance that it estimates counts the interaction of
student and example more than once. Its limit is the number of students: with S of them the spread between students is
underestimated by the factor (S - 1) / S, and with one it is not seen at all (only examples are resampled then). Where
all outcomes agree, the interval has no width, which a few hundred examples do not justify.
"""

import numpy as np
from numpy.typing import NDArray

from guard_plugin.errors import UnusableInput

__all__ = ["confidence_interval", "paired_difference"]

_RESAMPLES = 2000
_CHUNK = 100
_SEED = 0
_PERCENTILES = (2.5, 97.5)


def confidence_interval(outcomes: NDArray[np.bool_]) -> tuple[float, float]:
    """The 95 % confidence interval of the mean outcome.

    Args:
        outcomes: Shape (students, examples): whether the student was right on the example.

    Returns:
        Lower and upper bound, in [0, 1]; the same for the same outcomes.

    Raises:
        UnusableInput: If the array has another shape or is empty.
    """
    return _interval(_two_way(outcomes))


def paired_difference(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The difference of two accuracies, mean of a - mean of b, with its 95 % confidence interval.

    Args:
        a: Shape (students, examples).
        b: The same shape: the same examples, and students of the same seeds, in the same order. What both arms share
            (an example's difficulty, a seed's luck) cancels in the pairs.

    Returns:
        Difference, lower and upper bound, in [-1, 1].

    Raises:
        UnusableInput: If the shapes differ or the arrays are empty.
    """
    if a.shape != b.shape:
        raise UnusableInput(
            f"a paired difference needs the same students and examples on both sides, got shapes {a.shape} and "
            f"{b.shape}: run both benchmarks with the same --seeds and --n-examples"
        )
    differences = _two_way(a) - _two_way(b)
    return (float(differences.mean()), *_interval(differences))


def _two_way(outcomes: NDArray[np.bool_]) -> NDArray[np.float64]:
    if outcomes.ndim != 2 or not outcomes.size:
        raise UnusableInput(f"expected outcomes of shape (students >= 1, examples >= 1), got {outcomes.shape}")
    return outcomes.astype(np.float64)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    students, examples = values.shape
    random = np.random.default_rng(_SEED)
    # In chunks: the counts of all resamples at once would take 160 MB for 10,000 examples.
    means = [
        ((_counts(random, examples) @ values.T) * _counts(random, students)).sum(axis=1) / values.size
        for _ in range(_RESAMPLES // _CHUNK)
    ]
    low, high = np.percentile(np.concatenate(means), _PERCENTILES)
    return float(low), float(high)


def _counts(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    """How often each of n things was drawn in n draws with replacement, for each of a chunk of resamples."""
    draws = random.integers(n, size=(_CHUNK, n)) + n * np.arange(_CHUNK)[:, None]
    return np.bincount(draws.ravel(), minlength=_CHUNK * n).reshape(_CHUNK, n).astype(np.float64)
