"""A comparison as text for people, and as JSON for programs."""

from typing import Any

from guard_plugin.comparison.caveats import notes
from guard_plugin.comparison.comparing import Comparison, Difference
from guard_plugin.comparison.verdicts import verdicts
from guard_plugin.evaluation.tables import column_label, percent, text_table
from guard_plugin.foreign_text import on_one_line

__all__ = ["comparison_json", "comparison_text", "legend", "marked"]

_MARK = "*"


def comparison_text(comparison: Comparison) -> str:
    """Write the comparison for people: accuracies in percent, differences in percent points."""
    accuracies = [("accuracy (%) [95 % CI]", *comparison.benchmarks)]
    for column, entries in comparison.accuracy.items():
        cells = [f"{percent(one['mean'])} [{', '.join(map(percent, one['ci95']))}]" for one in entries.values()]
        accuracies.append((column_label(column), *cells))
    differences = [(f"minus {comparison.first} (points) [95 % CI]", *comparison.others)]
    for column, by_label in comparison.differences.items():
        differences.append((column_label(column), *map(marked, by_label.values())))
    lines = [text_table(accuracies), "", text_table(differences), legend(comparison), ""]
    flags = [
        f"FLAGGED {label}, {column_label(column)}: {on_one_line(reason)}" for label, column, reason in comparison.flags
    ]
    if flags:
        lines += [*flags, ""]
    for verdict in verdicts(comparison).values():
        lines += [verdict.headline, *(f"  {detail}" for detail in verdict.details), ""]
    return "\n".join([*lines, *notes(comparison)])


def marked(difference: Difference) -> str:
    """Write a difference and its interval, marked where the interval excludes 0."""
    return f"{difference} {_MARK if difference.sign else ' '}"


def legend(comparison: Comparison) -> str:
    """Explain the marks that ``marked`` made, or say why there is none."""
    differences = comparison.every_difference
    if any(one.sign for one in differences):
        return f"{_MARK} the interval excludes 0"
    judged = any(one.is_judged for one in differences)
    return "no interval excludes 0" if judged else "no difference is marked: see below"


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Describe the comparison for programs; accuracies and differences are fractions.

    "excludes_0" is null where one distilled set on a side shows nothing of others.
    """
    return {
        "schema": 1,
        "first": comparison.first,
        "paired_sets": comparison.pairs_sets,
        "folders": {
            label: {
                "path": str(benchmark.folder),
                "subject": benchmark.results["subject"],
                benchmark.unit: benchmark.count,
                "flags": [{"column": column, "reason": reason} for column, reason in benchmark.flags],
            }
            for label, benchmark in comparison.benchmarks.items()
        },
        "protocol": {key: value for key, value in comparison.protocol.items() if key != "normalization"},
        "columns": {
            column.name: {
                "norm": column.norm,
                "eps": column.eps,
                "eps_value": column.eps_value,
                "accuracy": comparison.accuracy[column.name],
                "differences": {
                    label: {
                        "difference": one.value,
                        "ci95": [one.low, one.high],
                        "excludes_0": bool(one.sign) if one.is_judged else None,
                        "limited_by": one.limited_by,
                        "shares": one.shares,
                    }
                    for label, one in comparison.differences[column.name].items()
                },
            }
            for column in comparison.columns
        },
        "verdicts": {label: verdict.headline for label, verdict in verdicts(comparison).items()},
        "notes": notes(comparison),
    }
