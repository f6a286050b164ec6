"""Reading the folder of a finished benchmark, and checking that its files belong together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.records import RecordFolder
from guard_plugin.evaluation.results import SCHEMA, sets_of, unit_of
from guard_plugin.files import read_json_object
from guard_plugin.versions import strict_zip

__all__ = ["Column", "Measured", "columns_of", "read_benchmark"]

_TOLERANCE = 1e-9
_FIX = "run the same guard benchmark command again, which completes it"
_AGAIN = "benchmark again into a new folder"

# The types of what a comparison shows or computes with; of a key that may be missing, None too.
_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "subject.kind": (str,),
    "subject.experiments": (int, _NONE),
    "protocol.dataset": (str,),
    "protocol.arch": (str,),
    "protocol.seeds": (int,),
    "protocol.n_examples": (int,),
    "protocol.recipe": (dict, _NONE),
    "versions": (dict,),
}
_TYPES_OF_DISTILLED: dict[str, tuple[type, ...]] = {
    "subject.path": (str,),
    "subject.sha256": (str,),
    "subject.paths": (list, _NONE),
    "subject.adapter": (str,),
    "subject.dataset": (str, _NONE),
}


@dataclass(frozen=True)
class Column:
    """One column of results.json; clean accuracy has no ball."""

    name: str
    kind: Literal["clean", "attack", "worst"]  # "worst": the examples that survive every attack in one ball
    attack: str  # its name without eps; "clean" or "worst case" for the other kinds
    norm: str | None = None
    eps: str | None = None  # as the user wrote it
    eps_value: float | None = None
    members: tuple[str, ...] = ()  # of a worst case: the columns that it unites

    @property
    def norm_label(self) -> str:
        """The norm as a reader writes it: "Linf"; empty for clean accuracy."""
        return (self.norm or "").capitalize()

    @property
    def ball(self) -> str:
        """The ball in words: "eps 8/255 (Linf)"; empty for clean accuracy."""
        return "" if self.eps is None else f"eps {self.eps} ({self.norm_label})"


@dataclass(frozen=True)
class Measured:
    """A finished benchmark, as its folder holds it.

    Args:
        folder: The folder.
        results: What results.json holds.
        correct: Column -> shape (students, examples), bool: whether a student is right on an example, by the records.
        columns: The columns, in the order of ``correct``.
        sets: The number of the distilled set of each student; a network that was given stands for itself.
    """

    folder: Path
    results: dict[str, Any]
    correct: dict[str, NDArray[np.bool_]]
    columns: tuple[Column, ...]
    sets: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many independent units there are: distilled sets, or networks that were given."""
        return len(set(self.sets))

    @property
    def unit(self) -> str:
        """What is independent of each other: "sets" or "networks"."""
        return unit_of(self.results["subject"])

    @property
    def is_told(self) -> bool:
        """Whether the results say which student is of which distilled set; if not, all count as of one."""
        subject = self.results["subject"]
        return self.unit == "networks" or any(subject.get(key) for key in ("set_of_student", "experiments"))

    @property
    def ledgers(self) -> list[Mapping[str, Any]]:
        """The ledgers of the distilling runs, as far as they were given."""
        given = self.results.get("ledgers")
        given = given if isinstance(given, list) else [self.results.get("ledger")]
        return [ledger for ledger in given if isinstance(ledger, Mapping)]

    @property
    def protocol(self) -> dict[str, Any]:
        """How the benchmark was measured."""
        protocol: dict[str, Any] = self.results["protocol"]
        return protocol

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Column and reason of each figure that the benchmark itself warns of."""
        return [(str(flag["column"]), str(flag["reason"])) for flag in self.results.get("flags") or []]


def read_benchmark(folder: Path) -> Measured:
    """Read what ``guard benchmark --out FOLDER`` wrote, and check that its files belong together.

    Worst cases are computed from the records.

    Raises:
        UnusableInput: If the benchmark is not finished, a file is missing or of another version, or the records do
            not give the accuracies in results.json.
    """
    if not folder.is_dir():
        raise UnusableInput(f"no such folder: {folder}; expected one that guard benchmark --out wrote")
    file = folder / "results.json"
    if not file.exists():
        begun = (folder / "fingerprint.json").exists()
        raise UnusableInput(
            f"{folder} holds {'an unfinished benchmark' if begun else 'no benchmark'} (no results.json): "
            f"{_FIX if begun else 'name a folder that guard benchmark --out wrote'}"
        )
    results = read_json_object(file)
    if results.get("schema") != SCHEMA:
        raise UnusableInput(
            f"expected schema {SCHEMA} in {file}, got {results.get('schema')!r}: compare with the guard-plugin that "
            f"wrote it, or benchmark again into a new folder"
        )
    try:
        columns = tuple(columns_of(results))
        _check_fingerprint(folder, results["protocol"])
        correct = _recorded_outcomes(folder, results["protocol"], columns)
        sets = tuple(sets_of(results["subject"], results["protocol"]["seeds"]))
        measured = Measured(folder, results, correct, columns, sets)
        _check_accuracies(measured)
        _check_types(measured)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnusableInput(
            f"{file} is not what guard benchmark writes ({type(error).__name__}: {error}): {_AGAIN}"
        ) from error
    return measured


def _check_fingerprint(folder: Path, protocol: Mapping[str, Any]) -> None:
    """Refuse a folder whose results.json and fingerprint.json are of two benchmarks."""
    file = folder / "fingerprint.json"
    if not file.exists():
        raise UnusableInput(f"{file} is missing: compare the folder as guard benchmark wrote it")
    fingerprint = read_json_object(file)
    differing = [key for key in protocol if key in fingerprint and fingerprint[key] != protocol[key]]
    if differing:
        raise UnusableInput(
            f"{folder} mixes the files of two benchmarks: results.json and fingerprint.json differ in "
            f"{', '.join(differing)}; {_AGAIN}"
        )


def _recorded_outcomes(
    folder: Path, protocol: Mapping[str, Any], columns: Sequence[Column]
) -> dict[str, NDArray[np.bool_]]:
    """Return the outcomes of every column, shape (students, examples), from the records."""
    correct: dict[str, NDArray[np.bool_]] = {}
    for column in columns:
        if column.kind == "worst":
            correct[column.name] = np.logical_and.reduce([correct[name] for name in ("clean", *column.members)])
            continue
        recorded = []
        for student in range(protocol["seeds"]):
            place = folder / "records" / f"student-{student}"
            record = RecordFolder(place, protocol["n_examples"]).get(column.name)
            if record is not None:
                recorded.append(record.correct)
            elif column.kind == "attack" and not correct["clean"][student].any():
                recorded.append(correct["clean"][student])  # Nothing was right, so nothing was attacked.
            else:
                raise UnusableInput(f"{place} has no record of column {column.name}: {_FIX}")
        correct[column.name] = np.stack(recorded)
    return correct


def _check_accuracies(measured: Measured) -> None:
    """Refuse a benchmark whose results.json and records give different accuracies."""
    for column, correct in measured.correct.items():
        accuracy = measured.results["accuracy"][column]
        per_seed, mean = accuracy["per_seed"], float(accuracy["mean"])
        recorded = correct.mean(axis=1)
        same = len(per_seed) == len(recorded) and np.allclose(per_seed, recorded, rtol=0, atol=_TOLERANCE)
        # Version 0.1, which did not write "per_set", took the mean over all students.
        sets = measured.sets if "per_set" in accuracy else range(len(recorded))
        found = np.mean([recorded[np.equal(sets, one)].mean() for one in set(sets)])
        if not same or abs(mean - found) > _TOLERANCE:
            raise UnusableInput(
                f"{measured.folder}: the records of column {column} give an accuracy of {found:.6f}, but "
                f"results.json says {mean:.6f}: the files are of two benchmarks, or were changed; {_AGAIN}"
            )


def _check_types(measured: Measured) -> None:
    """Fail with KeyError, TypeError or the like where something is missing, or of another type, that is shown."""
    results, _ = measured.results, measured.flags
    _ = [results["cost"]["seconds"][column.name] for column in measured.columns if column.kind != "worst"]
    for part, by_column in results["cost"].items():
        for name, price in by_column.items():
            if not 0 <= price <= sys.float_info.max:  # A TypeError where it is no number.
                raise ValueError(f"cost.{part}.{name} is out of range")
    types = _TYPES | _TYPES_OF_DISTILLED if results["subject"]["kind"] == "distilled" else _TYPES
    for path, expected in types.items():
        value: Any = results
        for key in path.split("."):
            value = value.get(key)
        if not isinstance(value, expected) or (isinstance(value, list) and not all(type(one) is str for one in value)):
            raise TypeError(f"{path} is {type(value).__name__}")


def columns_of(results: Mapping[str, Any]) -> list[Column]:
    """Match the columns of results.json with the attacks of its protocol, which stand in the same order."""
    names, attacks, members = list(results["accuracy"]), list(results["protocol"]["attacks"]), results["worst_cases"]
    clean, attacked, worst = names[:1], names[1 : 1 + len(attacks)], names[1 + len(attacks) :]
    # Each ball once, in the order in which the attacks name them.
    balls = list(dict.fromkeys((attack["norm"], attack["eps"], attack["eps_value"]) for attack in attacks))
    fits = clean == ["clean"] and len(attacked) == len(attacks) and worst == list(members) and len(worst) == len(balls)
    if not fits or not all(name.startswith(attack["name"]) for name, attack in strict_zip(attacked, attacks)):
        raise UnusableInput(
            f"the columns {', '.join(names)} are not those of the attacks "
            f"{', '.join(str(attack['name']) for attack in attacks)}"
        )
    columns = [Column("clean", "clean", "clean")]
    for name, attack in strict_zip(attacked, attacks):
        columns.append(Column(name, "attack", attack["name"], attack["norm"], attack["eps"], attack["eps_value"]))
    for name, ball in strict_zip(worst, balls):
        columns.append(Column(name, "worst", "worst case", *ball, members=tuple(members[name])))
    return columns
