"""Plain-text tables of finished benchmarks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.statistics import paired_difference

__all__ = ["column_label", "comparison", "comparison_table", "differing_settings", "results_table", "text_table"]

# The keys of a protocol that two benchmarks must share for their difference to mean something.
_SHARED = ("dataset", "split", "n_examples", "data_sha256", "arch", "recipe", "seeds", "attacks", "source")
_LEARNED = "distilled set"


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two protocols differ in what must be the same for a comparison.

    A learning rate that was learned along with the images is part of what is compared, and may differ.

    Args:
        one: The "protocol" of results.json.
        other: Another one.

    Returns:
        Path of the setting, such as "recipe.epochs" -> its two values (None where it is missing).
    """
    pairs = {key: (_comparable(one.get(key)), _comparable(other.get(key))) for key in _SHARED}
    return {path: values for key, (a, b) in pairs.items() for path, values in _differences(key, a, b)}


def _comparable(setting: Any) -> Any:
    if isinstance(setting, Mapping) and setting.get("learning_rate_source") == _LEARNED:
        return {key: value for key, value in setting.items() if key != "learning_rate"}
    return setting


def _differences(path: str, one: Any, other: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(f"{path}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _differences(f"{path}[{i}]", a, b)
    elif one != other:
        yield path, (one, other)


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
    differing = differing_settings(baseline.results["protocol"], guard.results["protocol"])
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
            column_label(column),
            f"{100 * row['baseline']:.1f}",
            f"{100 * row['guard']:.1f}",
            f"{100 * row['difference']:+.1f} [{100 * row['ci95'][0]:+.1f}, {100 * row['ci95'][1]:+.1f}]",
        )
        for column, row in comparison(baseline, guard).items()
    ]
    return text_table([("accuracy (%)", "baseline", "GUARD", "difference [95 % CI]"), *rows])


def results_table(finished: FinishedBenchmark) -> str:
    """One benchmark for people: accuracies in percent over the students."""
    rows = [
        (
            column_label(column),
            f"{100 * entry['mean']:.1f}",
            f"{100 * entry['std']:.1f}",
            f"[{100 * entry['ci95'][0]:.1f}, {100 * entry['ci95'][1]:.1f}]",
        )
        for column, entry in finished.results["accuracy"].items()
    ]
    return text_table([("accuracy (%)", "mean", "std", "95 % CI"), *rows])


def column_label(column: str) -> str:
    """A column's name for people."""
    return column.replace("worst_case", "worst case")


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Align the first column left and the others right, with a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)
