"""The demo's comparison of baseline and GUARD, for people and for programs."""

from typing import Any

from guard_plugin.comparison import Comparison
from guard_plugin.comparison.formatting import percent
from guard_plugin.evaluation.tables import column_label, text_table

__all__ = ["comparison_rows", "comparison_table"]


def comparison_rows(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the comparison as comparison.json holds it.

    Args:
        comparison: The benchmarks of the folders "baseline" and "guard".

    Returns:
        Per column: "baseline" and "guard" (mean accuracies), "difference" (guard - baseline) and its "ci95", all
        as fractions.
    """
    rows = {}
    for column, entries in comparison.accuracy.items():
        difference = comparison.differences[column]["guard"]
        rows[column] = {
            **{arm: entry["mean"] for arm, entry in entries.items()},
            "difference": difference.value,
            "ci95": [difference.low, difference.high],
        }
    return rows


def comparison_table(comparison: Comparison) -> str:
    """Write the comparison for people: accuracies in percent, differences in percent points."""
    rows = [
        (
            column_label(column),
            *(percent(entry["mean"]) for entry in entries.values()),
            str(comparison.differences[column]["guard"]),
        )
        for column, entries in comparison.accuracy.items()
    ]
    return text_table([("accuracy (%)", "baseline", "GUARD", "difference [95 % CI]"), *rows])
