"""Plain-text tables of finished benchmarks."""

from collections.abc import Sequence

from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.versions import strict_zip

__all__ = ["column_label", "percent", "results_table", "text_table"]


def results_table(finished: FinishedBenchmark) -> str:
    """Write one benchmark for people: accuracies in percent over the students."""
    rows = [
        (
            column_label(column),
            *(percent(entry[key]) for key in ("mean", "std")),
            f"[{', '.join(map(percent, entry['ci95']))}]",
        )
        for column, entry in finished.results["accuracy"].items()
    ]
    return text_table([("accuracy (%)", "mean", "std", "95 % CI"), *rows])


def percent(fraction: float) -> str:
    """Write a fraction in percent, with one decimal: "76.8"."""
    return f"{100 * fraction:.1f}"


def column_label(column: str) -> str:
    """Write a column's name for people."""
    return column.replace("worst_case", "worst case")


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align the first column left and the others right, with a rule under the header."""
    widths = [max(map(len, column)) for column in strict_zip(*rows)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in strict_zip(row[1:], widths[1:]))])
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)
