"""Plain-text tables of finished benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

from guard_plugin.evaluation.results import FinishedBenchmark, sets_of, unit_of
from guard_plugin.versions import strict_zip

__all__ = ["column_label", "counted", "number", "percent", "results_table", "text_table"]


def results_table(finished: FinishedBenchmark) -> str:
    """Write one benchmark for people: accuracies in percent over the students."""
    rows = [
        (
            column_label(column),
            *(percent(entry[key]) for key in ("mean", "std")),
            f"[{', '.join(map(percent, entry['ci95']))}]",
            entry["limited_by"],
        )
        for column, entry in finished.results["accuracy"].items()
    ]
    return text_table([("accuracy (%)", "mean", "std", "95 % CI", "limited by"), *rows])


def counted(results: Mapping[str, Any]) -> str:
    """Write how many sets, students and examples were measured, and what the intervals hold for."""
    subject, protocol = results["subject"], results["protocol"]
    networks, examples = protocol["seeds"], f"{number(protocol['n_examples'], 'example')}"
    unit = unit_of(subject)
    sets = len(set(sets_of(subject, networks)))
    if unit == "networks":
        told = f"{number(networks, 'network')}, {examples}"
        what, advice = "network", "measure networks of other seeds, too (--checkpoint, repeated)"
    else:
        given = subject.get("experiments", sets)
        of = "" if given == sets else f" (of {given} that were given)"
        told = f"{number(sets, 'distilled set')}{of}, {number(networks, 'student')}, {examples}"
        what, advice = "distilled set", "distil with other seeds, and give each result (--distilled, repeated)"
    if sets == 1:
        return (
            f"{told}: the intervals hold for this {what} alone. What others of the same method would give is not seen, "
            f"and more {'examples do' if unit == 'networks' else 'students do'} not show it: {advice}"
        )
    return f"{told}: the intervals are for other {what}s of this method; more of what limits one would narrow it"


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
