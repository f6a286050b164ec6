"""The summary figures of BEARD (arXiv:2411.09265), for those who have them of other methods."""

from dataclasses import dataclass

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.reading import Measured

__all__ = ["BeardScores", "beard_scores"]

_WEIGHT = 0.5  # BEARD's alpha


@dataclass(frozen=True)
class BeardScores:
    """BEARD's figures over the attacks in one ball, times 100; None where they are not defined.

    Args:
        ball: The ball in words.
        attacks: How many attacks they are over.
        rr: Robustness ratio: 1 - (clean - mean) / (clean - min), of accuracies.
        ae: Attack efficiency: (mean - clean) / (max - clean), of seconds.
        crei: Their mean.
    """

    ball: str
    attacks: int
    rr: float | None
    ae: float | None
    crei: float | None


def beard_scores(comparison: Comparison) -> dict[str, list[BeardScores]]:
    """Label -> scores per ball."""
    return {label: _scores(one) for label, one in comparison.benchmarks.items()}


def _scores(one: Measured) -> list[BeardScores]:
    seconds = one.results["cost"]["seconds"]
    scores = []
    for column in one.columns:
        if column.kind == "worst":
            accuracies = [float(one.finished.correct[name].mean()) for name in column.members]
            rr = _share(float(one.finished.correct["clean"].mean()), accuracies, min(accuracies))
            rr = None if rr is None else 1 - rr
            times = [float(seconds[name]) for name in column.members]
            ae = _share(float(seconds["clean"]), times, max(times))
            crei = None if rr is None or ae is None else _WEIGHT * rr + (1 - _WEIGHT) * ae
            scores.append(
                BeardScores(column.ball, len(times), *(None if x is None else 100 * x for x in (rr, ae, crei)))
            )
    return scores


def _share(clean: float, values: list[float], extreme: float) -> float | None:
    """How far the mean goes of the way from clean to the extreme."""
    return None if extreme == clean else (sum(values) / len(values) - clean) / (extreme - clean)
