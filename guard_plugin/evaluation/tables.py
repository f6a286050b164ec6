"""Plain-text tables of finished benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

from guard_plugin.evaluation.results import FinishedBenchmark, sets_of, unit_of
from guard_plugin.versions import strict_zip

__all__ = ["column_label", "counted", "number", "percent", "results_table", "text_table"]

_NONE = "\N{EN DASH}"


def results_table(finished: FinishedBenchmark) -> str:
    """Write one benchmark for people: accuracies in percent over the students."""
    rows = [
        (
            column_label(column),
            percent(entry["mean"]),
            percent(entry["std"]) if len(entry["per_seed"]) > 1 else _NONE,
            f"[{', '.join(map(percent, entry['ci95']))}]",
            entry["limited_by"],
        )
        for column, entry in finished.results["accuracy"].items()
    ]
    return text_table([("accuracy (%)", "mean", "std", "95 % CI", "limited by"), *rows])


def counted(results: Mapping[str, Any]) -> str:
    """Write how many sets, students and examples were measured, and what the intervals hold for."""
    subject, protocol = results["subject"], results["protocol"]
    seeds, unit = protocol["seeds"], unit_of(subject)
    count = len(set(sets_of(subject, seeds)))
    noun, option = ("network", "--checkpoint") if unit == "networks" else ("distilled set", "--distilled")
    unused = subject.get("experiments", count) - count if unit == "sets" else 0
    told = [number(count, noun) + (f" ({unused} more unused, for want of --seeds)" if unused else "")]
    told += [number(seeds, "student")] if unit == "sets" else []
    told += [number(protocol["n_examples"], "example")]
    if count > 1:
        return f"{', '.join(told)}: the intervals are for other {noun}s of this method, and for other examples"
    return (
        f"{', '.join(told)}: the intervals hold for this {noun} alone. Neither more students nor more examples show "
        f"what other seeds of this method give: repeat {option} for each of 5 or more"
    )


def number(count: int, noun: str) -> str:
    """Write a count with its noun: "3 students"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


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
