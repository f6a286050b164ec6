"""A benchmark from its plan to results.json, over one process or several, going on where an earlier one stopped."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from guard_plugin.attacks import Attack
from guard_plugin.datasets import ImageSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import Group, joined_group, local_device
from guard_plugin.evaluation.engine import evaluate_model
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.results import FinishedBenchmark, finish, versions
from guard_plugin.evaluation.source import Source

__all__ = ["Plan", "Subjects", "check_counts", "run_plan", "usable_device"]

# Of a record, per example; and of everything that does not grow with the examples.
_RECORD_BYTES, _OTHER_BYTES = 3, 2**20
_TIMES_WRITTEN = 2  # a file is written anew beside the old one


class Subjects(Protocol):
    """The networks that are measured."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def room(self) -> int:
        """Bytes that keeping them takes."""

    def prepare(self, folder: BenchmarkFolder, group: Group) -> None:
        """Do what must be done before the first can be measured."""

    def pixel_model(self, folder: BenchmarkFolder, k: int) -> nn.Module:
        """Network k in pixel space, in eval mode, where it is measured."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    Args:
        images: The examples.
        attacks: Attacks by column.
        protocol: For results.json: all of "protocol".
        identity: What the numbers depend on besides the protocol, as JSON values.
        subject: For results.json: "subject".
        out: The folder.
        batch_size: Examples per pass, >= 1.
        device: Where to compute.
        source: What transferred attacks are made on.
        ledger: For results.json: of the run that made the subject.
    """

    images: ImageSet
    attacks: Mapping[str, Attack]
    protocol: Mapping[str, Any]
    identity: Mapping[str, Any]
    subject: Mapping[str, Any]
    out: Path
    batch_size: int
    device: torch.device
    source: Source | None = None
    ledger: Mapping[str, Any] | None = None

    @property
    def room(self) -> int:
        """Bytes that the records of one network take."""
        return _RECORD_BYTES * len(self.images.labels) * (2 + 5 * len(self.attacks))


def run_plan(plan: Plan, subjects: Subjects) -> FinishedBenchmark:
    """Measure all networks and write results.json.

    Raises:
        UnusableInput: If the folder or a network cannot be worked with.
        AuditFailure: If an attack breaks its own bounds.
    """
    folder = BenchmarkFolder(plan.out)
    room = _OTHER_BYTES + _TIMES_WRITTEN * subjects.count * (subjects.room + plan.room)
    fingerprint = {**plan.protocol, **plan.identity, "software": _software(plan.device)}
    with joined_group() as group, ExitStack() as claim:
        group.first(lambda: claim.enter_context(folder.claimed(fingerprint, room)))
        subjects.prepare(folder, group)
        students = [
            evaluate_model(
                partial(subjects.pixel_model, folder, k),
                plan.images,
                plan.attacks,
                batch_size=plan.batch_size,
                device=plan.device,
                records=folder.records(k, len(plan.images.labels)),
                source=plan.source.pixel_model if plan.source else None,
                group=group,
            )
            for k in range(subjects.count)
        ]
        finished = finish(
            students,
            plan.attacks,
            subject=plan.subject,
            protocol=plan.protocol,
            ledger=plan.ledger,
            num_classes=plan.images.num_classes,
            run={"batch_size": plan.batch_size, "processes": group.size},
            device=plan.device,
        )
        if group.is_main_process:
            folder.write_results(finished.results)
    return finished


def _software(device: torch.device) -> dict[str, Any]:
    """What the numbers come from: records of one version do not go with those of another."""
    used = versions(device)
    return {name: used[name] for name in ("guard_plugin", "torch", "pyautoattack", "torchattacks", "device")}


def usable_device(device: torch.device | str) -> torch.device:
    """The device of that name, if something can be computed there; of several GPUs, torchrun's processes have one each.

    Raises:
        UnusableInput: If there is none.
    """
    try:
        place = local_device(torch.device(device))
        torch.zeros(1, device=place).item()
    except Exception as error:  # each kind of device fails in its own way
        raise UnusableInput(f"cannot compute on device {str(device)!r}: {error}; --device cpu always works") from error
    return place


def check_counts(**counts: int) -> None:
    """Refuse counts below 1.

    Raises:
        UnusableInput: If one is.
    """
    for name, count in counts.items():
        if count < 1:
            raise UnusableInput(f"expected {name} >= 1, got {count}")
