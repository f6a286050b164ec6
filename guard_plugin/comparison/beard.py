"""The summary figures of BEARD (arXiv:2411.09265), for readers who know these figures of other methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from guard_plugin.comparison.comparing import Comparison

__all__ = ["BeardScores", "beard_scores"]

_WEIGHT = 0.5  # BEARD's alpha


class BeardScores(NamedTuple):
    """BEARD's figures over the attacks in one ball, times 100; None where they are not defined.

    They are the robustness ratio, 1 - (clean - mean) / (clean - min) of accuracies, the attack efficiency,
    (mean - clean) / (max - clean) of seconds, and the mean of both.
    """

    ball: str
    attacks: int
    rr: float | None
    ae: float | None
    crei: float | None


def beard_scores(comparison: Comparison) -> dict[str, list[BeardScores]]:
    """Return label -> scores per ball."""
    balls = [column for column in comparison.columns if column.kind == "worst"]
    return {
        label: [_scores(comparison, label, column.ball, column.members) for column in balls]
        for label in comparison.benchmarks
    }


def _scores(comparison: Comparison, label: str, ball: str, attacks: Sequence[str]) -> BeardScores:
    clean, *accuracies = (comparison.accuracy[column][label]["mean"] for column in ("clean", *attacks))
    seconds = comparison.benchmarks[label].results["cost"]["seconds"]
    clean_seconds, *attack_seconds = (float(seconds[column]) for column in ("clean", *attacks))
    loss = _share(clean, accuracies, min(accuracies))
    ae = _share(clean_seconds, attack_seconds, max(attack_seconds))
    rr = None if loss is None else 1 - loss
    crei = None if rr is None or ae is None else _WEIGHT * rr + (1 - _WEIGHT) * ae
    return BeardScores(ball, len(attacks), *(None if score is None else 100 * score for score in (rr, ae, crei)))


def _share(clean: float, values: Sequence[float], extreme: float) -> float | None:
    """Return how far the mean of the values goes on the way from clean to the extreme."""
    return None if extreme == clean else (sum(values) / len(values) - clean) / (extreme - clean)
