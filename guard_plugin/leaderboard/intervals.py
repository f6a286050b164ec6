"""How narrow the 95 % interval of an accuracy can be, where the outcomes behind the accuracy are not known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from guard_plugin.evaluation.statistics import normal_quantile, students_quantile, wilson_interval

__all__ = ["narrowest_interval"]


def narrowest_interval(accuracies: Sequence[float], examples: int, *, is_wilsons: bool = True) -> tuple[float, float]:
    """Return bounds that every interval holds which ``confidence_interval`` gives for outcomes of these accuracies.

    Of the variance R + C (docs/intervals.md), n accuracies tell R, and of C that it is not negative. With Student's
    quantile t of n - 1 degrees of freedom, and the normal one z, which is below all others, half the width is at least

        (R t + C z) / sqrt(R + C) >= sqrt(R) t               where t <= 2 z, by C = 0,
                                  >= 2 sqrt(R z (t - z))     else, by C = R (t - 2 z) / z.

    The accuracy p of one student alone tells C = p (1 - p) / (examples - 1). Wilson's interval is the wider, the wider
    the half width is that it is made of.

    Args:
        accuracies: Those of the distilled sets; of one set, those of its students.
        examples: How many examples each of them is over.
        is_wilsons: Not so up to version 0.1: there the mean is the middle, and the quantile is one of Welch's and
            Satterthwaite's degrees of freedom, of which nothing is known but that it is above the normal one.

    Returns:
        The bounds, in [0, 1].

    Example:
        >>> [round(bound, 3) for bound in narrowest_interval([0.94, 0.96], 50)]
        [0.774, 0.991]
    """
    mean = float(np.mean(accuracies))
    half = _half_width(accuracies, examples, is_wilsons=is_wilsons)
    if (is_wilsons and half) or not 0 < mean < 1:
        return wilson_interval(mean, half, examples)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def _half_width(accuracies: Sequence[float], examples: int, *, is_wilsons: bool) -> float:
    n, z = len(accuracies), normal_quantile()
    if n == 1:
        (p,) = accuracies
        freedom = max(examples - 1, 1)  # Of one example, the accuracy is 0 or 1.
        return (students_quantile(freedom) if is_wilsons else z) * math.sqrt(p * (1 - p) / freedom)
    t = students_quantile(n - 1) if is_wilsons else z
    return (2 * math.sqrt(z * (t - z)) if t > 2 * z else t) * math.sqrt(np.var(accuracies, ddof=1) / n)
