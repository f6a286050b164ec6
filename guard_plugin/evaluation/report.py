"""Plain-text tables of finished benchmarks."""

from collections.abc import Sequence
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.statistics import paired_difference

__all__ = ["comparison", "comparison_table", "results_table"]

# The keys of a protocol that two benchmarks must share for their difference to mean something.
_SHARED = ("dataset", "split", "n_examples", "data_sha256", "arch", "recipe", "seeds", "attacks")


def comparison(baseline: FinishedBenchmark, guard: FinishedBenchmark) -> dict[str, Any]:
    """Compare two benchmarks of the same protocol, example by example.

    Args:
        baseline: Without the penalty.
        guard: With it.

    Returns:
        Per column: "baseline" and "guard" (mean accuracies), "difference" (guard - baseline) and its "ci95", all
        as fractions.

    Raises:
        UnusableInput: If the protocols differ in anything that changes the numbers.
    """
    one, other = baseline.results["protocol"], guard.results["protocol"]
    differing = [key for key in _SHARED if one[key] != other[key]]
    if differing:
        raise UnusableInput(
            f"two benchmarks can be compared only under the same protocol: these differ in {', '.join(differing)}"
        )
    return {column: _compared(baseline, guard, column) for column in baseline.correct}


def _compared(baseline: FinishedBenchmark, guard: FinishedBenchmark, column: str) -> dict[str, Any]:
    difference, low, high = paired_difference(guard.correct[column], baseline.correct[column])
    return {
        "baseline": float(baseline.correct[column].mean()),
        "guard": float(guard.correct[column].mean()),
        "difference": difference,
        "ci95": [low, high],
    }


def comparison_table(baseline: FinishedBenchmark, guard: FinishedBenchmark) -> str:
    """The comparison for people: accuracies in percent, differences in percent points.

    Raises:
        UnusableInput: If the protocols differ.
    """
    rows = [
        (
            _label(column),
            f"{100 * row['baseline']:.1f}",
            f"{100 * row['guard']:.1f}",
            f"{100 * row['difference']:+.1f} [{100 * row['ci95'][0]:+.1f}, {100 * row['ci95'][1]:+.1f}]",
        )
        for column, row in comparison(baseline, guard).items()
    ]
    return _table([("accuracy (%)", "baseline", "GUARD", "difference [95 % CI]"), *rows])


def results_table(finished: FinishedBenchmark) -> str:
    """One benchmark for people: accuracies in percent over the students."""
    rows = [
        (
            _label(column),
            f"{100 * entry['mean']:.1f}",
            f"{100 * entry['std']:.1f}",
            f"[{100 * entry['ci95'][0]:.1f}, {100 * entry['ci95'][1]:.1f}]",
        )
        for column, entry in finished.results["accuracy"].items()
    ]
    return _table([("accuracy (%)", "mean", "std", "95 % CI"), *rows])


def _label(column: str) -> str:
    return column.replace("worst_case", "worst case")


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Align the first column left and the others right, with a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)
