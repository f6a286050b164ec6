"""Checks on what a penalty is given, before any pass is spent."""

import math
from collections.abc import Sequence
from numbers import Real

from torch import Tensor, nn

from guard_plugin.errors import UnusableInput

__all__ = ["check_batch", "check_count", "check_h", "check_losses", "check_network", "check_number", "check_numbers"]


def check_number(name: str, value: float, *, zero: bool = False, fix: str = "") -> None:
    """Refuse a setting that is not a finite number > 0, or 0 where ``zero`` allows it; ``fix`` ends the message."""
    if not (isinstance(value, Real) and math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise UnusableInput(f"expected {name} to be a finite number {'>=' if zero else '>'} 0, got {value!r}{fix}")


def check_h(h: float) -> None:
    """Refuse a step length that is not a finite number > 0."""
    name = "h, the L2 length of the step in the network's input space,"
    check_number(name, h, fix="; to switch the penalty off, set strength to 0")


def check_count(name: str, value: int, *, least: int, of: str) -> None:
    """Refuse a setting that is not a whole number of at least so many."""
    if not isinstance(value, int) or value < least:
        raise UnusableInput(f"expected {name} >= {least}, a number of {of}, got {value!r}")


def check_numbers(name: str, value: Sequence[float]) -> None:
    """Refuse a setting that is not a sequence of finite numbers."""
    if not isinstance(value, (tuple, list)) or not all(isinstance(v, Real) and math.isfinite(v) for v in value):
        raise UnusableInput(f"expected {name} to be finite numbers, one per channel, got {value!r}")


def check_batch(network: object, inputs: Tensor, targets: Tensor) -> None:
    """Refuse what is no torch network, and a batch that is empty, not floating point, or not as long as its targets."""
    for name, value in (("inputs", inputs), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise UnusableInput(f"expected {name} to be a tensor, got {type(value).__name__}")
    shape = tuple(inputs.shape)
    if inputs.dim() < 1 or not inputs.is_floating_point():
        raise UnusableInput(
            f"expected a batch of floating-point inputs of shape (n, ...), got shape {shape} of {inputs.dtype}"
        )
    if inputs.numel() == 0:
        raise UnusableInput(f"expected at least one example of at least one value, got shape {shape}")
    if targets.dim() < 1 or len(targets) != len(inputs):
        raise UnusableInput(
            f"expected one target per example, got targets of shape {tuple(targets.shape)} for {len(inputs)} examples"
        )
    check_network(network)


def check_network(network: object) -> None:
    """Refuse what is no torch network."""
    if not isinstance(network, nn.Module):
        raise UnusableInput(f"expected a network, a torch.nn.Module, got {type(network).__name__}")


def check_losses(losses: object, n: int) -> Tensor:
    """Refuse what a ``loss_fn`` returned unless it is one loss per example."""
    if not isinstance(losses, Tensor) or losses.shape != (n,):
        found = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise UnusableInput(
            f"expected loss_fn to return one loss per example, shape ({n},), got {found}; "
            f'a torch criterion does with reduction="none"'
        )
    return losses
