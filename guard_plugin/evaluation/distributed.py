"""One benchmark over the processes that torchrun started."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from guard_plugin.errors import GuardError

__all__ = ["Group", "joined_group", "local_device"]

# Rank 0 may train for days while the others wait.
_PATIENCE = timedelta(days=30)

T = TypeVar("T")


class Group:
    """Processes that work on the same benchmark, in the same folder.

    Args:
        rank: This process's number, from 0.
        size: How many there are.
        processes: Their group in torch.distributed; None for one process alone.
    """

    def __init__(self, rank: int = 0, size: int = 1, processes: dist.ProcessGroup | None = None) -> None:
        self.rank = rank
        self.size = size
        self._processes = processes

    @property
    def is_main_process(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Everyone's value, in the order of ranks."""
        if self._processes is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._processes)
        return values

    def first(self, function: Callable[[], T]) -> T:
        """What the function gives to the first process, for all; also the error that it raises.

        Raises:
            GuardError: If the function does.
        """
        if self._processes is None:
            return function()
        value: T | None = None
        error: GuardError | None = None
        if self.is_main_process:
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
    """Join the processes of torchrun; without it, this process is alone."""
    if not dist.is_available() or not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield Group()
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    processes: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), processes)
    finally:
        if ours:
            dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of several GPUs, the one of its local rank."""
    if device.type != "cuda" or device.index is not None or not dist.is_torchelastic_launched():
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
