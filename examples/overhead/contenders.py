"""A method with its copy of the network, in a process of its own: its time, passes and memory."""

from __future__ import annotations

import copy
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.overhead.case import Batch
from guard_plugin.injection.calls.module_calls import watch_module_calls

__all__ = ["CLOCKS", "Apart", "Contender"]

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SGD_RATE = 1e-4  # small: the weights, and so the work, hardly change over a run


class Contender:
    """One method with its copy of the network, for which ``make_loss`` makes a context with its loss."""

    def __init__(self, network: nn.Module, make_loss: Callable[[nn.Module], Any], batch: Batch) -> None:
        self.network = copy.deepcopy(network)
        self.batch = batch
        self._make_loss = make_loss
        self._optimizer = torch.optim.SGD(self.network.parameters(), lr=SGD_RATE)

    @contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """Make ready, give the step, and put away."""
        with self._make_loss(self.network) as loss:

            def step() -> None:
                self._optimizer.zero_grad()
                loss(self.network, *self.batch).backward()
                self._optimizer.step()

            yield step
        self._optimizer.zero_grad()

    def seconds(self, steps: int, clock: str) -> float:
        """Time some steps, per step, on one of CLOCKS."""
        now = CLOCKS[clock]
        with self.turn() as step, _no_collection():
            _wait_for(self.batch)
            begin = now()
            for _ in range(steps):
                step()
            _wait_for(self.batch)
            return (now() - begin) / steps

    def passes(self) -> tuple[float, float]:
        """Count one step's forward passes, and the backward passes through them, in whole batches."""
        forwards: list[int] = []
        backwards: list[int] = []

        def count(proceed: Callable[..., Any], module: nn.Module, *args: Any) -> Any:
            output = proceed(*args)
            if module is self.network:
                forwards.append(len(output))
                if output.grad_fn is not None:
                    output.grad_fn.register_hook(lambda *gradients: backwards.append(len(output)))
            return output

        with self.turn() as step:
            for _ in range(2):
                step()  # the first of a network have passes that find out how it behaves
            stop = watch_module_calls(count)  # not a hook, with which a pass would not be shared
            step()
        stop()
        return sum(forwards) / len(self.batch[0]), sum(backwards) / len(self.batch[0])

    def peak_bytes(self) -> int:
        """Measure one step's peak memory above what is held between steps."""
        with self.turn() as step:
            return peak_on_cuda(step) if self.batch[0].is_cuda else peak_on_cpu(step)

    def is_finite(self) -> bool:
        """Whether the weights still are numbers."""
        return all(bool(value.isfinite().all()) for value in self.network.parameters())


class Apart:
    """A contender that has not made a step yet, in a forked process where that can be."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self._contender, self._process = contender, None
        if not contender.batch[0].is_cuda:  # CUDA does not survive a fork, and has an allocator of its own
            fork = multiprocessing.get_context("fork")
            self._pipe, there = fork.Pipe()
            self._process = fork.Process(target=_serve, args=(contender, there, threads), daemon=True)
            self._process.start()
            there.close()

    def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the contender.

        Raises:
            ChildProcessError: If it raises, which its process has then printed.
        """
        if self._process is None:
            return getattr(self._contender, method)(*args)
        self._pipe.send((method, args))
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise ChildProcessError(f"{method} failed in its process, which has printed why") from error

    def close(self) -> None:
        """End its process."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()


def _serve(contender: Contender, pipe: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    while True:
        method, args = pipe.recv()
        pipe.send(getattr(contender, method)(*args))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector, which would strike one method and not the other, out of a measured time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _wait_for(batch: Batch) -> None:
    if batch[0].is_cuda:
        torch.cuda.synchronize()


def peak_on_cuda(step: Callable[[], None]) -> int:
    """The caching allocator's own count."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() - held


def peak_on_cpu(step: Callable[[], None]) -> int:
    """The highest sum of all that the CPU allocator gave out and took back since the step began."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((one for one in events if one["name"] == "[memory]"), key=lambda one: one["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
