"""The measurement itself: a clean pass, then every attack on what the model classifies correctly.

An example counts for an attack's column when the model is right on it clean AND after the attack; so an example that is
wrong clean needs no attack. The attacks with a fixed batch (``Attack.coupled``) are the exception: there, what shares
an example's batch changes its outcome, so they get all examples, in batches of that size, and count the attacked images
alone, as their authors did. No other grouping gives the same outcomes, and costs are counted per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from guard_plugin.attacks import Attack
from guard_plugin.datasets import ImageSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import Group
from guard_plugin.evaluation.pace import Paces
from guard_plugin.evaluation.records import Cost, Outcomes, Record, RecordFolder
from guard_plugin.evaluation.worker import Worker
from guard_plugin.progress import Progress
from guard_plugin.ranks import is_main_process
from guard_plugin.versions import strict_zip

__all__ = ["CLEAN", "GRADIENTS", "column_of_part", "evaluate_model"]

CLEAN = "clean"

GRADIENTS = "+gradients"
"""A record beside those of the columns, of the examples on which the model is right: "correct" where the loss has a
gradient in some pixel."""

_MOST_PASSES = 4  # of a round: more examples at once take memory, and save nothing

_Work = Callable[[NDArray[np.int64]], Record]


def column_of_part(column: str, part: Attack) -> str:
    """Return the name of the record of an attack that runs as a part of another one, whose column is given."""
    return f"{column}+{part.name}"


def evaluate_model(
    model: Callable[[], nn.Module],
    images: ImageSet,
    attacks: Mapping[str, Attack],
    *,
    batch_size: int,
    device: torch.device,
    records: RecordFolder | None = None,
    source: nn.Module | None = None,
    group: Group | None = None,
    paces: Paces | None = None,
    title: str = "",
) -> dict[str, Record]:
    """Measure one model; what has been recorded already is not measured again.

    Args:
        model: Returns the classifier in pixel space, in eval mode; called only where something is left to measure.
        images: The examples.
        attacks: Attacks by column.
        batch_size: Examples per pass, >= 1. It changes speed and memory, and no result (on a GPU, beyond rounding).
        device: The device to which the models are moved.
        records: Outcomes so far, which are taken as they are and added to.
        source: The classifier on which transferred attacks are made, in eval mode.
        group: The processes that share the work; this one alone by default.
        paces: How long each column took on the models before this one, if it is one of several.
        title: What progress calls the model.

    Returns:
        A complete record per column and per part of AutoAttack (``column_of_part``), and ``GRADIENTS``, where an attack
        asks the model for gradients.
    """
    transferred = [attack.name for attack in attacks.values() if attack.transfer]
    if transferred and source is None:
        raise UnusableInput(f"expected a source model, which {', '.join(transferred)} needs: give --source")
    worker = Worker(model, source, images, attacks, batch_size, device)
    with _full_precision():
        return _Evaluation(worker, attacks, records, group or Group(), paces or Paces(), title).run()


@dataclass(frozen=True)
class _Evaluation:
    """Measures what the records lack, in rounds, and writes the records after each round, about twice a minute."""

    worker: Worker
    attacks: Mapping[str, Attack]
    records: RecordFolder | None
    group: Group
    paces: Paces
    title: str

    def run(self) -> dict[str, Record]:
        everything = np.ones(len(self.worker.images.labels), dtype=np.bool_)
        done = {CLEAN: self._record(CLEAN, self.worker.classify, everything)}
        clean, cost = done[CLEAN].correct, done[CLEAN].cost
        self.paces.pass_seconds = cost.seconds / max(1, cost.forwards)
        if any(attack.whitebox and not attack.transfer for attack in self.attacks.values()):
            done[GRADIENTS] = self._record(GRADIENTS, self.worker.differentiate, clean)
        # Composites last: their parts may have columns of their own.
        for column, attack in sorted(self.attacks.items(), key=lambda item: bool(item[1].parts)):
            if attack.parts:
                done.update(self._composite(column, attack, done))
            else:
                done[column] = self._single(column, attack, clean)
        return done

    def _single(self, column: str, attack: Attack, candidates: Outcomes) -> Record:
        if attack.coupled is not None:
            candidates = np.ones_like(candidates)
        return self._record(column, partial(self.worker.attack, attack), candidates, attack.coupled)

    def _composite(self, column: str, attack: Attack, done: Mapping[str, Record]) -> dict[str, Record]:
        """Run the parts one after the other, each on what the earlier ones left; reuse those with a column."""
        found = {}
        remaining, cost, farthest = done[CLEAN].correct, Cost(), 0.0
        for part in attack.parts:
            name = column_of_part(column, part)
            known = next((done[name] for name, other in self.attacks.items() if other == part and name in done), None)
            found[name] = known or self._single(name, part, remaining)
            remaining = remaining & found[name].correct
            farthest = max(farthest, found[name].farthest)
            cost = cost if known else cost + found[name].cost
        found[column] = Record(remaining, cost, farthest=farthest)
        self._keep(column, found[column])
        return found

    def _record(self, column: str, work: _Work, candidates: Outcomes, batch: int | None = None) -> Record:
        record = self.group.first(lambda: self.records.get(column) if self.records else None)
        if record is None:
            record = Record.begun(candidates)
            self._keep(column, record)  # also where there is nothing to measure: a finished folder holds every record
        pace = self.paces.of(column, self.worker.batch_size * _MOST_PASSES)
        what, total = " ".join(filter(None, (self.title, column))), len(record.done)
        with Progress(what, total, "example", done=int(record.done.sum()), shown=is_main_process()) as progress:
            remaining = np.flatnonzero(~record.done)
            while len(remaining):
                mine, in_round = self._share(remaining, pace.examples, batch)
                remaining = remaining[in_round:]
                shares = self.group.gather([(examples, work(examples)) for examples in mine])
                record = record.joined(part for share in shares for part in share)
                self._keep(column, record)
                # The processes took the same shares into account: their next rounds must be equally long.
                seconds = max(sum(part.cost.seconds for _, part in share) for share in shares)
                pace.took(-(-in_round // self.group.size), seconds)
                progress.update(in_round)
        return record

    def _keep(self, column: str, record: Record) -> None:
        if self.records and is_main_process():
            self.records.put(column, record)

    def _share(self, remaining: NDArray[np.int64], size: int, batch: int | None) -> tuple[list[NDArray[np.int64]], int]:
        """Return this process's share of the next round, and the number of examples in the whole round.

        The share is arrays of examples that are worked on together, of up to ``size`` in all, but at least one batch.
        Fewer than half as many that would be left over come along: a round of their own would make nearly empty passes.
        The examples are dealt out to the processes one by one, since neighbours may be alike and no process should get
        all the hard ones; or, where the batch is fixed, batch by batch.
        """
        unit, processes = batch or 1, self.group.size
        in_round = remaining[: max(1, size // unit) * unit * processes]
        if 2 * (len(remaining) - len(in_round)) < len(in_round):
            in_round = remaining
        share = [in_round[i : i + unit] for i in range(0, len(in_round), unit)][self.group.rank :: processes]
        return share if batch or not share else [np.concatenate(share)], len(in_round)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Switch TF32 off on GPUs: an attack that rounds to ten bits is another attack."""
    places: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, allowed in strict_zip(places, before):
            place.allow_tf32 = allowed
