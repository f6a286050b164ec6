"""Extra passes through the host's network that leave no trace on it."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from guard_plugin.errors import UnusableInput
from guard_plugin.versions import copies_of, force_eager, strict_zip, switch_autocast_off

__all__ = ["normalises_by_batch", "random_state", "random_streams_kept", "undisturbed", "without_autocast"]


def normalises_by_batch(module: nn.Module) -> bool:
    """Tell a BatchNorm layer in training, which a pass in batch statistics leaves as it is."""
    return isinstance(module, _BatchNorm) and module.training


@contextmanager
def undisturbed(network: nn.Module, device: torch.device, *, batch_statistics: bool = False) -> Iterator[None]:
    """Give a network its evaluation behaviour, and put everything back afterwards.

    Inside, BatchNorm uses its running statistics and dropout does nothing, as in the authors' code; autocast is off,
    also where a forward enters it, since input gradients underflow in float16. Afterwards the flag of every submodule
    (not only the root's: DC keeps BatchNorm modules in eval inside a network in train), every buffer and the random
    streams of Python, numpy and torch are what they were, and so is every tensor that a module holds as an attribute
    (the weight that weight_norm computes, a balance loss). Parameters' ``.grad`` is the caller's to respect: use
    ``torch.autograd.grad``. Not covered: other attributes that a network sets in its forward, and what hooks of the
    host's own do on these passes.

    Args:
        network: Any network.
        device: Where its inputs are.
        batch_statistics: Leave BatchNorm in training, where it is: it normalises by each batch, as in the host's pass.

    Raises:
        UnusableInput: If a BatchNorm layer keeps no running statistics: its output then couples the examples of a
            batch even in evaluation, and a per-example gradient does not exist.
    """
    _refuse_coupled_examples(network)
    modules = list(network.modules())
    training = [m for m in modules if m.training and not (batch_statistics and normalises_by_batch(m))]
    buffers = [(m, name, buffer) for m in modules for name, buffer in m.named_buffers(recurse=False)]
    attributes = [(m, name, value) for m in modules for name, value in vars(m).items() if isinstance(value, Tensor)]
    with random_streams_kept(device), without_autocast(device), force_eager():
        for module in training:
            module.training = False
        # Copies in the meantime: torch counts no change of running statistics, so that a graph that the host keeps
        # would be differentiated with those that a later pass of its own has left.
        copies = copies_of([buffer for *_, buffer in buffers])
        for (module, name, _), copy in strict_zip(buffers, copies):
            module._buffers[name] = copy
        try:
            yield
        finally:
            for module in training:
                module.training = True
            for module, name, buffer in buffers:
                module._buffers[name] = buffer
            for module, name, value in attributes:
                vars(module)[name] = value


@contextmanager
def random_streams_kept(device: torch.device, *, seed: int | None = None) -> Iterator[None]:
    """Put back, afterwards, the random streams of Python, numpy and torch (the CPU's and the device's).

    Inside they begin with ``seed``, which is below 2 ** 32; by default, they go on.
    """
    python, numpy_state = random.getstate(), numpy.random.get_state(legacy=False)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if seed is not None:
                _seed(device, seed)
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numpy_state)


_autocast_lock = threading.RLock()


@contextmanager
def without_autocast(device: torch.device) -> Iterator[None]:
    """Switch autocast off, and leave it off where a network's forward itself enters it, by a block or a decorator.

    That holds in this thread, and in those that it starts, as DataParallel does; the others may be at passes of the
    host's own.
    """
    autocast: Any = torch.autocast
    # One thread at a time: what is put back must be torch's own.
    with _autocast_lock:
        plain, others = autocast.__enter__, {*threading.enumerate()} - {threading.current_thread()}

        @functools.wraps(plain)
        def enter(entered: Any) -> Any:
            returned = plain(entered)
            # Not by the object's own flag: a decorator's object is the same in all threads.
            if threading.current_thread() not in others:
                switch_autocast_off(entered.device)
            return returned

        autocast.__enter__ = enter
        try:
            with autocast(device.type, enabled=False):
                yield
        finally:
            autocast.__enter__ = plain


def random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of every random stream that a network may draw from, to be compared."""
    on_device = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    numpys = numpy.random.get_state(legacy=False)["state"].values()  # of any bit generator
    of_numpy = tuple(one.tobytes() if isinstance(one, numpy.ndarray) else one for one in numpys)
    return torch.get_rng_state().numpy().tobytes(), on_device, of_numpy, random.getstate()


def _seed(device: torch.device, seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed reaches devices that are not put back
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _refuse_coupled_examples(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise UnusableInput(
                f"expected BatchNorm layers with running statistics, found {name or 'the network'} "
                f"({type(module).__name__}) with track_running_stats=False: its examples depend on each other even in "
                f"eval mode, so no per-example gradient exists; build it with track_running_stats=True"
            )
