"""Per-example outcomes and their costs, kept on the disk so that a killed benchmark can be continued."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guard_plugin.distilled.arrays import ArrayFile
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.files import atomic_file, explain_write_errors

__all__ = ["Cost", "Outcomes", "Record", "RecordFolder"]

Outcomes = NDArray[np.bool_]


@dataclass(frozen=True)
class Cost:
    """The price of measuring one column on one student: seconds over processes, examples times passes."""

    seconds: float = 0.0
    forwards: int = 0  # with the copies that fill passes up (``PASS_UNIT``), as are the backward passes
    backwards: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the price of both."""
        return Cost(self.seconds + other.seconds, self.forwards + other.forwards, self.backwards + other.backwards)

    def __sub__(self, other: Cost) -> Cost:
        """Return what was spent after the other was read."""
        return Cost(self.seconds - other.seconds, self.forwards - other.forwards, self.backwards - other.backwards)


@dataclass(frozen=True)
class Record:
    """The outcomes of some examples in one column for one student; every array has shape (examples,) and is bool.

    Args:
        correct: Whether the model is right on the clean example and, in an attack's column, after the attack.
        cost: What measuring took.
        done: Whether the outcome is known; by default, all are.
        reached: Whether the model chooses the class that a targeted attack aims at; by default, on no example.
        farthest: The largest distance of a returned example from its image, in the attack's norm.
    """

    correct: Outcomes
    cost: Cost
    done: Outcomes = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    reached: Outcomes = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    farthest: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("done", True), ("reached", False)):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(self.correct.shape, value))

    @classmethod
    def begun(cls, candidates: Outcomes) -> Record:
        """Return a record whose candidates, shape (examples,), are to be measured; all others count as wrong."""
        return cls(np.zeros_like(candidates), Cost(), done=~candidates)

    def joined(self, parts: Iterable[tuple[NDArray[np.int64], Record]]) -> Record:
        """Return this record with more outcomes: those of k examples for each shape (k,) of positions in this one."""
        correct, done, reached = self.correct.copy(), self.done.copy(), self.reached.copy()
        cost, farthest = self.cost, self.farthest
        for examples, part in parts:
            correct[examples], done[examples], reached[examples] = part.correct, part.done, part.reached
            cost, farthest = cost + part.cost, max(farthest, part.farthest)
        return Record(correct, cost, done, reached, farthest)


class RecordFolder:
    """The records of one student, one .npz file per column, of so many examples each; the folder need not exist."""

    def __init__(self, folder: Path, examples: int) -> None:
        self._folder = folder
        self._examples = examples

    def get(self, column: str) -> Record | None:
        """Return the record of a column, perhaps with some examples not done; None where nothing has been measured.

        Raises:
            UnusableInput: If the file is not a record of that many examples.
        """
        path = self._path(column)
        if not path.exists():
            return None
        try:
            file = ArrayFile(path)
            outcomes = {name: file[name].numpy() for name in ("correct", "done", "reached")}
            numbers = [file[name].item() for name in ("seconds", "forwards", "backwards", "farthest")]
            if not all(0 <= number < math.inf for number in numbers):
                raise UnusableInput("expected costs and distances >= 0 and finite")
            seconds, forwards, backwards, farthest = numbers
            cost = Cost(float(seconds), int(forwards), int(backwards))
        except (GuardError, RuntimeError, TypeError) as error:
            raise UnusableInput(f"{path} is not a record of a benchmark ({error}): delete it and run again") from error
        for name, values in outcomes.items():
            if values.shape != (self._examples,) or values.dtype != np.bool_:
                raise UnusableInput(
                    f"expected {self._examples} outcomes {name!r} in {path}, got shape {values.shape} of "
                    f"{values.dtype}: delete it and run again"
                )
        return Record(cost=cost, farthest=farthest, **outcomes)

    def put(self, column: str, record: Record) -> None:
        """Write the record of a column."""
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
        """Delete every record."""
        for path in self._folder.glob("*.npz"):
            path.unlink()

    def _path(self, column: str) -> Path:
        # "pgd100@4/255" must not become a folder.
        return self._folder / f"{column.replace('/', '_')}.npz"
