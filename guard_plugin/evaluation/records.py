"""Per-example outcomes, kept on the disk so that a killed benchmark can go on."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.costs import Cost
from guard_plugin.files import atomic_file, explain_write_errors

__all__ = ["Flags", "Outcome", "Record", "RecordFolder"]

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """What became of some examples.

    Args:
        examples: Shape (k,): their positions in the data set.
        correct: Shape (k,), bool: whether the model is right on them, in an attack's column after the attack.
        reached: Shape (k,), bool: whether the model chooses the class that a targeted attack aims at; else False.
        farthest: The largest distance of a returned example from its image, in the attack's norm.
        cost: What it took.
    """

    examples: NDArray[np.int64]
    correct: Flags
    reached: Flags
    farthest: float
    cost: Cost


@dataclass(frozen=True)
class Record:
    """The outcome of one column for one student.

    Args:
        correct: Shape (examples,), bool: right on the clean example and, in an attack's column, after the attack.
        cost: What it took.
        done: Shape (examples,), bool: whether that is known already.
        reached: Shape (examples,), bool: whether the model chooses the class that a targeted attack aims at.
        farthest: The largest distance of a returned example from its image, in the attack's norm.
    """

    correct: Flags
    cost: Cost
    done: Flags = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    reached: Flags = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    farthest: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("done", True), ("reached", False)):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(self.correct.shape, value))

    @classmethod
    def begun(cls, candidates: Flags) -> "Record":
        """A record of which the candidates, shape (examples,), are still to be measured; all others count as wrong."""
        return cls(np.zeros_like(candidates), Cost(0.0, 0, 0), done=~candidates)

    @property
    def complete(self) -> bool:
        """Whether every example is done."""
        return bool(self.done.all())

    def joined(self, outcomes: Sequence[Outcome]) -> "Record":
        """This record with some more examples done."""
        correct, done, reached, cost = self.correct.copy(), self.done.copy(), self.reached.copy(), self.cost
        for outcome in outcomes:
            done[outcome.examples] = True
            correct[outcome.examples] = outcome.correct
            reached[outcome.examples] = outcome.reached
            cost = cost + outcome.cost
        farthest = max([self.farthest, *(outcome.farthest for outcome in outcomes)])
        return replace(self, correct=correct, done=done, reached=reached, cost=cost, farthest=farthest)


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
        """The record of a column, perhaps of a part of the examples, or None where none has been measured yet.

        Raises:
            UnusableInput: If the file is not a record of that many examples.
        """
        path = self._path(column)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                flags = {name: file[name] for name in ("correct", "done", "reached")}
                cost = Cost(float(file["seconds"]), int(file["forwards"]), int(file["backwards"]))
                farthest = float(file["farthest"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UnusableInput(f"{path} is not a record of a benchmark ({error}): delete it and run again") from error
        for name, values in flags.items():
            if values.shape != (self._examples,) or values.dtype != np.bool_:
                raise UnusableInput(
                    f"expected {self._examples} flags {name!r} in {path}, got shape {values.shape} of {values.dtype}: "
                    f"delete it and run again"
                )
        return Record(cost=cost, farthest=farthest, **flags)

    def put(self, column: str, record: Record) -> None:
        """Keep the record of a column."""
        cost = record.cost
        with explain_write_errors(self._path(column)), atomic_file(self._path(column)) as file:
            np.savez(
                file,
                correct=record.correct,
                done=record.done,
                reached=record.reached,
                farthest=np.float64(record.farthest),
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
