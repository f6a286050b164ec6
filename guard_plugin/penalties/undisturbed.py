"""Extra passes through the host's network that leave no trace on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from guard_plugin.errors import UnusableInput

__all__ = ["undisturbed"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Give a network its evaluation behaviour, and afterwards everything back as it was.

    Inside, BatchNorm uses its running statistics and dropout does nothing, as in the authors' code; autocast is off,
    since input gradients underflow in float16. Afterwards the flag of every submodule (not only the root's: DC keeps
    BatchNorm modules in eval inside a network in train), every buffer and torch's random streams are what they were.
    Parameters' ``.grad`` is the caller's to respect: use ``torch.autograd.grad``.

    Args:
        network: Any network.
        device: Where its inputs are: that device's random stream is kept too.

    Raises:
        UnusableInput: If a BatchNorm layer keeps no running statistics: its output then couples the examples of a
            batch even in evaluation, and a per-example gradient does not exist.
    """
    modules = list(network.modules())
    _refuse_coupled_examples(network)
    training = [module for module in modules if module.training]
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in network.buffers()]
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.autocast(device.type, enabled=False):
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True
            for buffer, version, value in buffers:
                if buffer._version != version:
                    with torch.no_grad():
                        buffer.copy_(value)


def _refuse_coupled_examples(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, _BATCH_NORMS) and module.running_mean is None:
            raise UnusableInput(
                f"expected BatchNorm layers with running statistics, found {name or 'the network'} "
                f"({type(module).__name__}) with track_running_stats=False: its examples depend on each other even in "
                f"eval mode, so no per-example gradient exists; build it with track_running_stats=True"
            )
