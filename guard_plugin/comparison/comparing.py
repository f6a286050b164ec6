"""Benchmarks against the first of them: accuracies, and differences that are paired by distilled set and example."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from guard_plugin.comparison.protocols import OPTIONS, differing_settings
from guard_plugin.comparison.reading import Measured
from guard_plugin.comparison.results_file import Column
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import accuracy_entry, shown_setting
from guard_plugin.evaluation.statistics import paired_difference
from guard_plugin.versions import strict_zip

__all__ = ["Comparison", "Difference", "compare", "difference", "labels_of"]


@dataclass(frozen=True)
class Difference:
    """An accuracy minus the first folder's, as a fraction, with its 95 % confidence interval.

    Args:
        value: The difference.
        low: Lower bound.
        high: Upper bound.
        shares: The parts of the interval's width, as in ``Estimate``.
        limited_by: The largest of them.
        is_judged: Whether the interval speaks of the methods: one set on a side shows nothing of others.
    """

    value: float
    low: float
    high: float
    shares: dict[str, float]
    limited_by: str
    is_judged: bool

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0; also 0 where nothing is judged."""
        return ((self.low > 0) - (self.high < 0)) if self.is_judged else 0

    def __str__(self) -> str:
        """Write the difference and its interval in percent points: "+2.7 [+1.0, +4.4]"."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


@dataclass(frozen=True)
class Comparison:
    """Benchmarks of one protocol, by label, each compared with the first.

    Args:
        columns: The columns, which all benchmarks share.
        protocol: The protocol of the first; those of the others may differ in their normalization.
        accuracy: Column -> label -> what ``accuracy_entry`` computes, from the records.
        differences: Column -> label of another benchmark -> its accuracy minus the first's.
        pairs_sets: Whether all of these are paired by distilled set.
    """

    benchmarks: dict[str, Measured]
    first: str
    others: list[str]
    columns: tuple[Column, ...]
    protocol: dict[str, Any]
    accuracy: dict[str, dict[str, dict[str, Any]]]
    differences: dict[str, dict[str, Difference]]
    pairs_sets: bool

    @property
    def every_difference(self) -> list[Difference]:
        """The differences of all columns and benchmarks."""
        return [one for by_label in self.differences.values() for one in by_label.values()]

    @property
    def flags(self) -> list[tuple[str, str, str]]:
        """Label, column and reason of each figure that its own benchmark warns of."""
        return [(label, *flag) for label, benchmark in self.benchmarks.items() for flag in benchmark.flags]


def compare(benchmarks: Sequence[Measured], *, pair_sets: bool = True) -> Comparison:
    """Compare benchmarks, two or more, with the first of them.

    Args:
        benchmarks: The benchmarks.
        pair_sets: Whether the k-th distilled sets of all have a seed in common, which differences are then paired by.

    Raises:
        UnusableInput: If there are fewer, one is given twice, or their protocols differ in what changes the numbers.
    """
    folders = [benchmark.folder.resolve() for benchmark in benchmarks]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise UnusableInput(
            f"expected two or more different folders of benchmarks, got {', '.join(map(str, folders)) or 'none'}"
        )
    labelled = list(strict_zip(labels_of(folders), benchmarks))
    for one, other in combinations(labelled, 2):  # all pairs: a setting that the first does not tell may differ
        _check_protocols(*one, *other)
    (first, reference), *given = labelled
    # Names of columns differ where a radius is written in other words: "pgd100@8/255", "pgd100@16/510".
    others = [(label, benchmark.with_columns(reference.columns)) for label, benchmark in given]
    named = dict([(first, reference), *others])
    accuracy, differences = {}, {}
    for column in reference.correct:
        accuracy[column] = {
            label: accuracy_entry(one.correct[column], one.sets, one.unit) for label, one in named.items()
        }
        differences[column] = {
            label: difference(one, column, reference, column, pair_sets=pair_sets) for label, one in others
        }
    return Comparison(
        benchmarks=named,
        first=first,
        others=[label for label, _ in others],
        columns=reference.columns,
        protocol=reference.protocol,
        accuracy=accuracy,
        differences=differences,
        pairs_sets=pair_sets and len({one.count for one in benchmarks}) == 1,
    )


def difference(one: Measured, column: str, reference: Measured, of_reference: str, *, pair_sets: bool) -> Difference:
    """Subtract the accuracy of a reference's column from that of a column, on the same examples."""
    ours, theirs = one.correct[column], reference.correct[of_reference]
    estimate = paired_difference(ours, theirs, one.sets, reference.sets, pair_sets=pair_sets)
    return Difference(*estimate.of(one.unit), is_judged=min(one.count, reference.count) > 1)


def _check_protocols(first: str, reference: Measured, label: str, benchmark: Measured) -> None:
    """Refuse two benchmarks whose protocols differ, or that unite other columns in their worst cases."""
    differing = differing_settings(reference.protocol, benchmark.protocol)
    if differing:
        pairs = {path: (shown_setting(a), shown_setting(b)) for path, (a, b) in differing.items()}
        values = (f"{path} ({first}: {a}; {label}: {b})" for path, (a, b) in pairs.items())
        keys = dict.fromkeys(path.split(".")[0].split("[")[0] for path in differing)
        options = ", ".join(option for key in keys if (option := OPTIONS[key])) or "settings"
        raise UnusableInput(
            f"{first} and {label} were not measured in the same way and cannot be compared: they differ in "
            f"{'; '.join(values)}. Benchmark one of them again, into a new folder, with the other's {options}"
        )
    if _members(benchmark) != _members(reference):
        raise UnusableInput(
            f"{first} and {label} unite other attacks in their worst cases: benchmark one of them again, with the "
            f"guard-plugin and the --eps of the other"
        )


def _members(benchmark: Measured) -> list[list[int]]:
    """Return the places of the columns that each worst case unites."""
    places = {column.name: i for i, column in enumerate(benchmark.columns)}
    return [[places[name] for name in column.members] for column in benchmark.columns]


def labels_of(paths: Sequence[Path]) -> list[str]:
    """Return the paths' names, with as many parents before them as it takes to tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]
