"""The measurement itself: a clean pass, then every attack on what was classified correctly.

An example counts for an attack's column when the model is right on it clean AND after the attack; so an example that is
wrong clean needs no attack. (Attacks that are coupled, see ``Attack.coupled``, count as their authors did.)
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from guard_plugin.attacks import Attack
from guard_plugin.datasets import ImageSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.costs import Cost
from guard_plugin.evaluation.distributed import Group
from guard_plugin.evaluation.records import Flags, Outcome, Record, RecordFolder
from guard_plugin.evaluation.worker import Model, Worker

__all__ = ["CLEAN", "Measurement", "evaluate_model"]

CLEAN = "clean"

# A record like a column's, kept beside them: which examples have a gradient.
_GRADIENTS = "+gradients"

_PASSES_PER_ROUND = 4


@dataclass(frozen=True)
class Measurement:
    """What one model did.

    Args:
        records: A record per column, "clean" first, all complete.
        flat: Shape (examples,), bool: right on the example, and its loss has no gradient in any pixel; None where no
            attack asks for gradients.
    """

    records: dict[str, Record]
    flat: Flags | None


def evaluate_model(
    model: Model,
    images: ImageSet,
    attacks: Mapping[str, Attack],
    *,
    batch_size: int,
    device: torch.device,
    records: RecordFolder | None = None,
    source: Model | None = None,
    group: Group | None = None,
) -> Measurement:
    """Measure one model, going on from what has been recorded.

    Args:
        model: Gives the classifier in pixel space, in eval mode, on ``device``; called only where something is left to
            measure.
        images: What to measure on.
        attacks: Attacks by column.
        batch_size: Examples per pass, >= 1. It changes speed and memory, and no result (on a GPU, beyond rounding).
        device: Where to compute.
        records: Outcomes so far, which are taken as they are and added to.
        source: Gives the classifier on which transferred attacks are made.
        group: The processes that share the work; this one alone by default.

    Returns:
        What was measured.

    Raises:
        UnusableInput: If the model or the images cannot be measured on, or an attack needs a source and there is none.
        AuditFailure: If an attack breaks its own bounds.
    """
    transferred = [attack.name for attack in attacks.values() if attack.transfer]
    if transferred and source is None:
        raise UnusableInput(f"expected a source model, which {', '.join(transferred)} needs: give --source")
    worker = Worker(model, source, images, attacks, batch_size, device)
    with _full_precision():
        return _Evaluation(worker, len(images.labels), attacks, records, group or Group()).run()


_Work = Callable[[NDArray[np.int64]], Outcome]


@dataclass(frozen=True)
class _Evaluation:
    """What is missing in the records is measured, in rounds, after each of which they are kept."""

    worker: Worker
    examples: int
    attacks: Mapping[str, Attack]
    records: RecordFolder | None
    group: Group

    def run(self) -> Measurement:
        done = {CLEAN: self._record(CLEAN, self.worker.look, np.ones(self.examples, dtype=np.bool_))}
        clean = done[CLEAN].correct
        flat = self._flat(clean)
        # Composites last: their parts may have columns of their own.
        for column, attack in sorted(self.attacks.items(), key=lambda item: bool(item[1].parts)):
            done[column] = (
                self._composite(column, attack, done) if attack.parts else self._single(column, attack, clean)
            )
        return Measurement({column: done[column] for column in (CLEAN, *self.attacks)}, flat)

    def _single(self, column: str, attack: Attack, candidates: Flags) -> Record:
        if attack.coupled:
            candidates = np.ones_like(candidates)
        return self._record(column, partial(self.worker.attack, attack), candidates, attack.coupled)

    def _composite(self, column: str, attack: Attack, done: Mapping[str, Record]) -> Record:
        """The parts one after the other, each on what is left; those that have been measured are not run again."""
        kept = self._kept(column)
        if kept is not None:
            return kept
        left, cost, farthest = done[CLEAN].correct, Cost(0.0, 0, 0), 0.0
        for part in attack.parts:
            known = next((done[name] for name, other in self.attacks.items() if other == part and name in done), None)
            record = known or self._single(f"{column}+{part.name}", part, left)
            left = left & record.correct
            farthest = max(farthest, record.farthest)
            cost = cost if known else cost + record.cost
        record = Record(left, cost, farthest=farthest)
        self._keep(column, record)
        return record

    def _flat(self, clean: Flags) -> Flags | None:
        if not any(attack.whitebox and not attack.transfer for attack in self.attacks.values()):
            return None
        return clean & ~self._record(_GRADIENTS, self.worker.differentiate, clean).correct

    def _record(self, column: str, work: _Work, candidates: Flags, coupled: int | None = None) -> Record:
        kept = self._kept(column)
        record = Record.begun(candidates) if kept is None else kept
        rounds = self._rounds(np.flatnonzero(~record.done), coupled)
        for mine in tqdm(
            rounds, column, unit="round", leave=False, disable=None if self.group.is_main_process else True
        ):
            outcomes = [work(examples) for examples in mine]
            record = record.joined([outcome for share in self.group.gather(outcomes) for outcome in share])
            self._keep(column, record)
        return record

    def _kept(self, column: str) -> Record | None:
        return self.group.first(lambda: self.records.get(column) if self.records else None)

    def _keep(self, column: str, record: Record) -> None:
        if self.records and self.group.is_main_process:
            self.records.put(column, record)

    def _rounds(self, left: NDArray[np.int64], coupled: int | None) -> list[list[NDArray[np.int64]]]:
        """This process's share of every round: lists of examples that are worked on together."""
        rank, processes, size = self.group.rank, self.group.size, self.worker.batch_size * _PASSES_PER_ROUND
        if coupled is None:
            # Dealt out one by one: neighbours may be alike, and no process should get all the hard ones.
            shares = [pool[rank::processes] for pool in _split(left, size * processes)]
            return [[share] if len(share) else [] for share in shares]
        batches = _split(left, coupled)
        per_round = max(1, size // coupled) * processes
        return [batches[i : i + per_round][rank::processes] for i in range(0, len(batches), per_round)]


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 on GPUs: an attack that rounds to ten bits is another attack."""
    places: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def _split(examples: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [examples[i : i + size] for i in range(0, len(examples), size)]
