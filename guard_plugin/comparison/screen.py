"""A comparison on the screen, and as JSON."""

from typing import Any

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.words import notes, verdicts
from guard_plugin.evaluation.tables import column_label, text_table

__all__ = ["comparison_json", "comparison_text"]

_MARK = "*"


def comparison_text(comparison: Comparison) -> str:
    """The comparison for people: accuracies in percent, differences in percent points."""
    flags = [
        f"FLAGGED {label}, {column_label(column)}: {reason}"
        for label, one in comparison.benchmarks.items()
        for column, reason in one.flags
    ]
    told = [line for verdict in verdicts(comparison) for line in (verdict.headline, *_indented(verdict.details), "")]
    parts = [
        _accuracies(comparison),
        "",
        _differences(comparison),
        f"{_MARK} the interval excludes 0",
        "",
        *flags,
        *([""] if flags else []),
        *told,
        *notes(comparison),
    ]
    return "\n".join(parts)


def _indented(lines: tuple[str, ...]) -> list[str]:
    return [f"  {line}" for line in lines]


def _accuracies(comparison: Comparison) -> str:
    rows = [
        (
            column_label(column.name),
            *(
                f"{100 * entry['mean']:.1f} [{100 * entry['ci95'][0]:.1f}, {100 * entry['ci95'][1]:.1f}]"
                for entry in comparison.accuracy[column.name].values()
            ),
        )
        for column in comparison.columns
    ]
    return text_table([("accuracy (%) [95 % CI]", *comparison.benchmarks), *rows])


def _differences(comparison: Comparison) -> str:
    rows = [
        (
            column_label(column.name),
            *(
                f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}] {_MARK if one.sign else ' '}"
                for one in comparison.differences[column.name].values()
            ),
        )
        for column in comparison.columns
    ]
    return text_table([(f"minus {comparison.first} (points) [95 % CI]", *comparison.others), *rows])


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs; accuracies and differences are fractions."""
    return {
        "schema": 1,
        "first": comparison.first,
        "folders": {
            label: {
                "path": str(one.folder),
                "subject": one.results["subject"],
                "flags": [{"column": column, "reason": reason} for column, reason in one.flags],
            }
            for label, one in comparison.benchmarks.items()
        },
        "protocol": {key: value for key, value in comparison.protocol.items() if key != "normalization"},
        "columns": {
            column.name: {
                "norm": column.norm,
                "eps": column.eps,
                "eps_value": column.eps_value,
                "accuracy": comparison.accuracy[column.name],
                "differences": {
                    label: {"difference": one.value, "ci95": [one.low, one.high], "excludes_0": bool(one.sign)}
                    for label, one in comparison.differences[column.name].items()
                },
            }
            for column in comparison.columns
        },
        "verdicts": {
            label: verdict.headline for label, verdict in zip(comparison.others, verdicts(comparison), strict=True)
        },
        "notes": notes(comparison),
    }
