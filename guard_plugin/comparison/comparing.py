"""Benchmarks against the first of them: accuracies, and differences that are paired by student and example."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from guard_plugin.comparison.columns import Column
from guard_plugin.comparison.protocols import OPTIONS, differing_settings
from guard_plugin.comparison.reading import Measured
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import accuracy_entry
from guard_plugin.evaluation.statistics import paired_difference

__all__ = ["Comparison", "Difference", "compare"]


@dataclass(frozen=True)
class Difference:
    """An accuracy minus the first folder's, as a fraction, with its 95 % confidence interval.

    Args:
        value: The difference.
        low: The lower bound of the interval.
        high: The upper bound of the interval.
        pairs: How many networks there are on each side.
    """

    value: float
    low: float
    high: float
    pairs: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0; one network on each side shows nothing of others."""
        return ((self.low > 0) - (self.high < 0)) if self.pairs > 1 else 0

    def __str__(self) -> str:
        """Write the difference and its interval in percent points: "+2.7 [+1.0, +4.4]"."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


@dataclass(frozen=True)
class Comparison:
    """Benchmarks of one protocol; the others are compared with the first.

    Args:
        benchmarks: Two or more benchmarks by label.
    """

    benchmarks: dict[str, Measured]

    @property
    def first(self) -> str:
        """The label of the benchmark with which the others are compared."""
        return next(iter(self.benchmarks))

    @property
    def others(self) -> list[str]:
        """The labels of the other benchmarks."""
        return list(self.benchmarks)[1:]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, which all benchmarks share."""
        return self.benchmarks[self.first].columns

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of the first; those of the others may differ in their normalization."""
        return self.benchmarks[self.first].protocol

    @property
    def flags(self) -> list[tuple[str, str, str]]:
        """Label, column and reason of each figure that its own benchmark warns of."""
        return [
            (label, column, reason)
            for label, benchmark in self.benchmarks.items()
            for column, reason in benchmark.flags
        ]

    @cached_property
    def accuracy(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Column -> label -> "mean", "std", "per_seed", "ci95", computed from the records."""
        return {
            column.name: {
                label: accuracy_entry(benchmark.correct[column.name]) for label, benchmark in self.benchmarks.items()
            }
            for column in self.columns
        }

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """Column -> label of another benchmark -> its accuracy minus the first's, paired by student and example."""
        first = self.benchmarks[self.first].correct
        return {
            column.name: {
                label: Difference(
                    *paired_difference(self.benchmarks[label].correct[column.name], first[column.name]),
                    pairs=len(first[column.name]),
                )
                for label in self.others
            }
            for column in self.columns
        }


def compare(benchmarks: Sequence[Measured]) -> Comparison:
    """Join benchmarks whose numbers may be compared.

    Args:
        benchmarks: Two or more benchmarks; the others are compared with the first.

    Raises:
        UnusableInput: If there are fewer, one is given twice, or their protocols differ in what changes the numbers.
    """
    folders = [benchmark.folder.resolve() for benchmark in benchmarks]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise UnusableInput(
            f"expected two or more different folders of benchmarks, got {', '.join(map(str, folders)) or 'none'}"
        )
    comparison = Comparison(dict(zip(_labels(folders), benchmarks, strict=True)))
    for label in comparison.others:
        _check_comparable(comparison, label)
    return comparison


def _check_comparable(comparison: Comparison, label: str) -> None:
    """Refuse another benchmark whose protocol or columns are not those of the first."""
    first, benchmark = comparison.first, comparison.benchmarks[label]
    differing = differing_settings(comparison.protocol, benchmark.protocol)
    if differing:
        values = (f"{path} ({first}: {_shown(a)}; {label}: {_shown(b)})" for path, (a, b) in differing.items())
        keys = dict.fromkeys(path.split(".")[0].split("[")[0] for path in differing)
        options = ", ".join(option for key in keys if (option := OPTIONS[key])) or "settings"
        raise UnusableInput(
            f"{first} and {label} were not measured in the same way and cannot be compared: they differ in "
            f"{'; '.join(values)}. Benchmark one of them again, into a new folder, with the other's {options}"
        )
    if benchmark.columns != comparison.columns:
        raise UnusableInput(
            f"{first} and {label} name their columns differently: benchmark one of them again, with the guard-plugin "
            f"of the other"
        )


def _shown(value: Any) -> str:
    """Write a setting; of attacks, only their names and radii."""
    if isinstance(value, list) and all(isinstance(attack, dict) and "name" in attack for attack in value):
        return ", ".join(f"{attack['name']} at {attack.get('eps')}" for attack in value)
    return str(value)


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, with as many parents before them as it takes to tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        labels = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]
