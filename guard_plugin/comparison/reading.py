"""Reading the folder of a finished benchmark, and checking that its files belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guard_plugin.comparison.results_file import AGAIN, Column, Reported, explain_misfits, read_results
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.records import Outcomes, RecordFolder
from guard_plugin.evaluation.results import means_of_sets
from guard_plugin.files import read_json_object
from guard_plugin.versions import strict_zip

__all__ = ["Measured", "read_benchmark"]

_TOLERANCE = 1e-9
_FIX = "run the same guard benchmark command again, which completes it"


@dataclass(frozen=True)
class Measured(Reported):
    """A finished benchmark, as its folder holds it.

    Args:
        folder: The folder.
        correct: Column -> shape (students, examples), bool: whether a student is right on an example, by the records.
    """

    folder: Path
    correct: dict[str, Outcomes]

    def with_columns(self, columns: Sequence[Column]) -> Measured:
        """Return this benchmark with its columns, in their order, under the names of these.

        What ``results`` holds by column and a comparison shows, which is costs and flags, is renamed too.
        """
        names = {mine.name: theirs.name for mine, theirs in strict_zip(self.columns, columns)}
        cost = {
            part: {names.get(name, name): price for name, price in by_column.items()}
            for part, by_column in self.results["cost"].items()
        }
        flags = [{"column": names.get(column, column), "reason": reason} for column, reason in self.flags]
        return Measured(
            {**self.results, "cost": cost, "flags": flags},
            tuple(columns),
            self.sets,
            self.folder,
            {names[name]: correct for name, correct in self.correct.items()},
        )


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
    reported = read_results(file)
    with explain_misfits(file):
        _check_fingerprint(folder, reported.protocol)
        correct = _recorded_outcomes(folder, reported.protocol, reported.columns)
        measured = Measured(reported.results, reported.columns, reported.sets, folder, correct)
        _check_accuracies(measured)
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
            f"{', '.join(differing)}; {AGAIN}"
        )


def _recorded_outcomes(folder: Path, protocol: Mapping[str, Any], columns: Sequence[Column]) -> dict[str, Outcomes]:
    """Return the outcomes of every column, shape (students, examples), from the records."""
    correct: dict[str, Outcomes] = {}
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
        found = np.mean(means_of_sets(recorded, sets))
        if not same or abs(mean - found) > _TOLERANCE:
            raise UnusableInput(
                f"{measured.folder}: the records of column {column} give an accuracy of {found:.6f}, but "
                f"results.json says {mean:.6f}: the files are of two benchmarks, or were changed; {AGAIN}"
            )
