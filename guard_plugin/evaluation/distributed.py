"""One benchmark over the processes that torchrun started, each with its device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.ranks import is_main_process

__all__ = ["Group", "joined_group", "usable_device"]

# Rank 0 may train for days while the others wait.
_PATIENCE = timedelta(days=30)

T = TypeVar("T")


@dataclass
class Group:
    """Processes that work on the same benchmark, in the same folder; by default, this one alone."""

    rank: int = 0
    size: int = 1
    processes: Any = None  # their group in torch.distributed

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of ranks."""
        if self.processes is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.processes)
        return values

    def first(self, function: Callable[[], T]) -> T:
        """Call the function in the main process, and return its value, or raise its GuardError, in all processes."""
        if self.processes is None:
            return function()
        value: T | None = None
        error: GuardError | None = None
        if is_main_process():
            try:
                value = function()
            except GuardError as raised:
                error = raised
        (value, error), *_ = self.gather((value, error))
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where that is what the function gave


@contextmanager
def joined_group() -> Iterator[Group]:
    """Join the processes of torchrun; without torchrun, this process is alone."""
    if not dist.is_available() or not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield Group()
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    processes = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), processes)
    finally:
        if ours:
            dist.destroy_process_group()


def usable_device(device: torch.device | str) -> torch.device:
    """Return the device of that name, of which "auto" is the GPU where there is one, and else the CPU.

    Of several GPUs, each process of torchrun gets the one of its local rank.

    Raises:
        UnusableInput: If nothing can be computed on it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        if place.type == "cuda" and place.index is None and dist.is_torchelastic_launched():
            place = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.zeros(1, device=place).item()
    except Exception as error:  # each kind of device fails in its own way
        raise UnusableInput(f"cannot compute on device {str(device)!r}: {error}; --device cpu always works") from error
    return place
