"""Benchmarks against the first of them: accuracies, paired differences, and what may be said of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from guard_plugin.comparison.columns import Column
from guard_plugin.comparison.reading import Measured
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import accuracy_entry
from guard_plugin.evaluation.statistics import paired_difference
from guard_plugin.evaluation.tables import differing_settings

__all__ = ["Comparison", "Difference", "compare"]

_OPTIONS = {
    "dataset": "--dataset",
    "n_examples": "--n-examples",
    "data_sha256": "--data",
    "arch": "--arch",
    "recipe": "--recipe and --learning-rate",
    "seeds": "--seeds",
    "attacks": "--attacks and --eps",
    "source": "--source",
}


@dataclass(frozen=True)
class Difference:
    """An accuracy minus the first folder's, as a fraction, with its 95 % confidence interval.

    Args:
        value: The difference.
        low: Lower bound.
        high: Upper bound.
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


@dataclass(frozen=True)
class Comparison:
    """Benchmarks of one protocol; the first is what the others are compared with.

    Args:
        benchmarks: By label, two or more.
    """

    benchmarks: dict[str, Measured]

    @property
    def first(self) -> str:
        """The label of the benchmark that the others are compared with."""
        return next(iter(self.benchmarks))

    @property
    def others(self) -> list[str]:
        """The labels of the others."""
        return list(self.benchmarks)[1:]

    @property
    def columns(self) -> tuple[Column, ...]:
        """What was measured."""
        return self.benchmarks[self.first].columns

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol that they share; normalization may differ."""
        return self.benchmarks[self.first].protocol

    @cached_property
    def accuracy(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Column -> label -> "mean", "std", "per_seed", "ci95", from the records."""
        return {
            column.name: {
                label: accuracy_entry(one.finished.correct[column.name]) for label, one in self.benchmarks.items()
            }
            for column in self.columns
        }

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """Column -> label of another benchmark -> its accuracy minus the first's, paired by student and example."""
        first = self.benchmarks[self.first].finished.correct
        return {
            column.name: {
                label: Difference(
                    *paired_difference(self.benchmarks[label].finished.correct[column.name], first[column.name]),
                    pairs=len(first[column.name]),
                )
                for label in self.others
            }
            for column in self.columns
        }


def compare(benchmarks: Sequence[Measured]) -> Comparison:
    """Join benchmarks whose numbers may be compared.

    Args:
        benchmarks: Two or more; the first is what the others are compared with.

    Raises:
        UnusableInput: If there are fewer, one is given twice, or their protocols differ in what changes the numbers.
    """
    folders = [one.folder.resolve() for one in benchmarks]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise UnusableInput(
            f"expected two or more different folders of benchmarks, got {', '.join(map(str, folders)) or 'none'}"
        )
    labelled = dict(zip(_labels(folders), benchmarks, strict=True))
    (first, reference), *others = labelled.items()
    for label, one in others:
        _check_protocols(first, reference, label, one)
    return Comparison(labelled)


def _check_protocols(first: str, reference: Measured, label: str, one: Measured) -> None:
    differing = differing_settings(reference.protocol, one.protocol)
    if not differing and one.columns == reference.columns:
        return
    if not differing:
        raise UnusableInput(
            f"{first} and {label} name their columns differently: benchmark one of them again, with the guard-plugin "
            f"of the other"
        )
    told = "; ".join(f"{path} ({first}: {_shown(a)}; {label}: {_shown(b)})" for path, (a, b) in differing.items())
    keys = dict.fromkeys(path.split(".")[0].split("[")[0] for path in differing)
    options = ", ".join(_OPTIONS[key] for key in keys if key in _OPTIONS) or "settings"
    raise UnusableInput(
        f"{first} and {label} were not measured in the same way and cannot be compared: they differ in {told}. "
        f"Benchmark one of them again, into a new folder, with the other's {options}"
    )


def _shown(value: Any) -> str:
    """A setting, short: of attacks, their names and radii."""
    if isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value):
        return ", ".join(f"{one['name']} at {one.get('eps')}" for one in value)
    return str(value)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents before them as it takes to tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        labels = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]
