"""Per-example outcomes, kept on the disk so that a killed benchmark can go on."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.costs import Cost

__all__ = ["Record", "RecordFolder", "atomic_file"]


@dataclass(frozen=True)
class Record:
    """The outcome of one column for one student.

    Args:
        correct: Shape (examples,), bool: right on the clean example and, in an attack's column, after the attack.
        cost: What it took.
    """

    correct: NDArray[np.bool_]
    cost: Cost


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name complete, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class RecordFolder:
    """The records of one student, one .npz file per column.

    Args:
        folder: Where they are; need not exist.
        examples: How many outcomes each record holds.
    """

    def __init__(self, folder: Path, examples: int) -> None:
        self._folder = folder
        self._examples = examples

    def get(self, column: str) -> Record | None:
        """The record of a column, or None where it has not been measured yet.

        Raises:
            UnusableInput: If the file is not a record of that many examples.
        """
        path = self._path(column)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                correct = file["correct"]
                cost = Cost(float(file["seconds"]), int(file["forwards"]), int(file["backwards"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UnusableInput(f"{path} is not a record of a benchmark ({error}): delete it and run again") from error
        if correct.shape != (self._examples,) or correct.dtype != np.bool_:
            raise UnusableInput(
                f"expected {self._examples} flags in {path}, got shape {correct.shape} of {correct.dtype}: "
                f"delete it and run again"
            )
        return Record(correct, cost)

    def put(self, column: str, record: Record) -> None:
        """Keep the record of a column."""
        cost = record.cost
        with atomic_file(self._path(column)) as file:
            np.savez(
                file,
                correct=record.correct,
                seconds=np.float64(cost.seconds),
                forwards=np.int64(cost.forwards),
                backwards=np.int64(cost.backwards),
            )

    def clear(self) -> None:
        """Forget every record."""
        for path in self._folder.glob("*.npz"):
            path.unlink()

    def _path(self, column: str) -> Path:
        # "pgd100@4/255" must not become a folder.
        return self._folder / f"{column.replace('/', '_')}.npz"
