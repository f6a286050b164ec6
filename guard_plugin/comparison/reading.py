"""Reading the folder of a finished benchmark, and not believing it blindly."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guard_plugin.comparison.columns import Column, columns_of
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.records import Outcomes as Flags
from guard_plugin.evaluation.records import RecordFolder
from guard_plugin.evaluation.results import SCHEMA, FinishedBenchmark

__all__ = ["Measured", "read_benchmark"]

_TOLERANCE = 1e-9
_FIX = "run the same guard benchmark command again, which completes it"


@dataclass(frozen=True)
class Measured:
    """A finished benchmark and where it lies.

    Args:
        folder: Its folder.
        finished: Its results, with the outcomes read from its records.
        columns: Its columns, as ``finished.correct`` has them.
    """

    folder: Path
    finished: FinishedBenchmark
    columns: tuple[Column, ...]

    @property
    def results(self) -> dict[str, Any]:
        """What results.json holds."""
        return self.finished.results

    @property
    def protocol(self) -> dict[str, Any]:
        """How it was measured."""
        protocol: dict[str, Any] = self.results["protocol"]
        return protocol

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Columns that the benchmark itself doubts, with the reason."""
        return [(str(flag["column"]), str(flag["reason"])) for flag in self.results.get("flags") or []]


def read_benchmark(folder: Path) -> Measured:
    """Read what ``guard benchmark --out FOLDER`` wrote, and check that its files belong together.

    Args:
        folder: The folder.

    Returns:
        The benchmark; worst cases are computed from the records.

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
    results = _json_object(file)
    if results.get("schema") != SCHEMA:
        raise UnusableInput(
            f"expected schema {SCHEMA} in {file}, got {results.get('schema')!r}: compare with the guard-plugin that "
            f"wrote it, or benchmark again into a new folder"
        )
    try:
        columns = columns_of(results)
        _check_fingerprint(folder, results["protocol"])
        correct = _outcomes(folder, results["protocol"], columns)
        _check_accuracies(folder, results["accuracy"], correct)
        measured = Measured(folder, FinishedBenchmark(results, correct), tuple(columns))
        _check_keys(measured)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableInput(
            f"{file} is not what guard benchmark writes ({type(error).__name__}: {error}): benchmark again into a "
            f"new folder"
        ) from error
    return measured


def _check_keys(measured: Measured) -> None:
    """Fail with KeyError or TypeError where something is missing that a comparison shows."""
    results, protocol, _ = measured.results, measured.protocol, measured.flags
    subject = results["subject"]
    needed = ("kind", "path", "sha256", "adapter") if subject["kind"] == "distilled" else ("kind",)
    _ = (
        [subject[key] for key in needed],
        [protocol[key] for key in ("dataset", "arch")],
        (protocol["recipe"] or {}).items(),
        results["versions"].items(),
    )
    _ = [results["cost"]["seconds"][column.name] for column in measured.columns if column.kind != "worst"]


def _json_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableInput(f"{file} cannot be read as JSON ({error}): benchmark again into a new folder") from error
    if not isinstance(value, dict):
        raise UnusableInput(f"expected a JSON object in {file}, got {type(value).__name__}")
    return value


def _check_fingerprint(folder: Path, protocol: Mapping[str, Any]) -> None:
    file = folder / "fingerprint.json"
    if not file.exists():
        raise UnusableInput(f"{file} is missing: compare the folder as guard benchmark wrote it")
    fingerprint = _json_object(file)
    differing = [key for key in protocol if key in fingerprint and fingerprint[key] != protocol[key]]
    if differing:
        raise UnusableInput(
            f"{folder} mixes the files of two benchmarks: results.json and fingerprint.json differ in "
            f"{', '.join(differing)}; benchmark again into a new folder"
        )


def _outcomes(folder: Path, protocol: Mapping[str, Any], columns: Sequence[Column]) -> dict[str, Flags]:
    correct: dict[str, Flags] = {}
    for column in columns:
        if column.kind == "worst":
            correct[column.name] = np.logical_and.reduce(
                [correct["clean"], *(correct[name] for name in column.members)]
            )
        else:
            correct[column.name] = _recorded(folder, protocol["seeds"], protocol["n_examples"], column.name)
    return correct


def _recorded(folder: Path, seeds: int, n_examples: int, column: str) -> Flags:
    flags = []
    for student in range(seeds):
        place = folder / "records" / f"student-{student}"
        record = RecordFolder(place, n_examples).get(column)
        if record is None:
            raise UnusableInput(f"{place} has no record of column {column}: {_FIX}")
        flags.append(record.correct)
    return np.stack(flags)


def _check_accuracies(folder: Path, accuracy: Mapping[str, Any], correct: Mapping[str, Flags]) -> None:
    for column, flags in correct.items():
        per_seed = flags.mean(axis=1)
        told, told_mean = accuracy[column]["per_seed"], float(accuracy[column]["mean"])
        same = len(told) == len(per_seed) and np.allclose(told, per_seed, rtol=0, atol=_TOLERANCE)
        if not same or abs(told_mean - per_seed.mean()) > _TOLERANCE:
            raise UnusableInput(
                f"{folder}: the records of column {column} give an accuracy of {per_seed.mean():.6f}, but results.json "
                f"says {told_mean:.6f}: the files are of two benchmarks, or were changed; benchmark again into a new "
                f"folder"
            )
