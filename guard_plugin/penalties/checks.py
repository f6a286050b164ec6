"""Checks on what a penalty is given, before any pass is spent."""

import math
from collections.abc import Sequence
from numbers import Real

from torch import Tensor, nn

from guard_plugin.errors import UnusableInput

__all__ = [
    "check_batch",
    "check_count",
    "check_h",
    "check_losses",
    "check_network",
    "check_numbers",
    "check_outputs",
    "check_positive",
    "check_share",
    "check_strength",
]


def check_strength(strength: float) -> None:
    """Refuse a strength that is not a finite number >= 0."""
    if not (isinstance(strength, Real) and math.isfinite(strength) and strength >= 0):
        raise UnusableInput(f"expected strength to be a finite number >= 0, got {strength!r}")


def check_h(h: float) -> None:
    """Refuse a step length that is not a finite number > 0."""
    if not (isinstance(h, Real) and math.isfinite(h) and h > 0):
        raise UnusableInput(
            f"expected h, the L2 length of the step in the network's input space, to be a finite number > 0, "
            f"got {h!r}; to switch the penalty off, set strength to 0"
        )


def check_share(name: str, strength: float) -> None:
    """Refuse a strength above 1 of a penalty that replaces that part of the host's loss."""
    if strength > 1:
        raise UnusableInput(
            f"expected strength between 0 and 1, as {name!r} replaces that part of the host's loss, got {strength!r}"
        )


def check_positive(name: str, value: float) -> None:
    """Refuse a setting that is not a finite number > 0."""
    if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
        raise UnusableInput(f"expected {name} to be a finite number > 0, got {value!r}")


def check_count(name: str, value: int, *, least: int, of: str) -> None:
    """Refuse a setting that is not a whole number of at least so many."""
    if not isinstance(value, int) or value < least:
        raise UnusableInput(f"expected {name} >= {least}, a number of {of}, got {value!r}")


def check_numbers(name: str, value: Sequence[float]) -> None:
    """Refuse a setting that is not a sequence of finite numbers."""
    if not isinstance(value, (tuple, list)) or not all(isinstance(v, Real) and math.isfinite(v) for v in value):
        raise UnusableInput(f"expected {name} to be finite numbers, one per channel, got {value!r}")


def check_batch(inputs: Tensor, targets: Tensor) -> None:
    """Refuse a batch that is empty, not real-valued floating point, or not as long as its targets."""
    for name, value in (("inputs", inputs), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise UnusableInput(f"expected {name} to be a tensor, got {type(value).__name__}")
    if inputs.dim() < 1 or not inputs.is_floating_point():
        raise UnusableInput(
            f"expected a batch of floating-point inputs of shape (n, ...), "
            f"got shape {tuple(inputs.shape)} of {inputs.dtype}"
        )
    if inputs.numel() == 0:
        raise UnusableInput(f"expected at least one example of at least one value, got shape {tuple(inputs.shape)}")
    if targets.dim() < 1 or len(targets) != len(inputs):
        raise UnusableInput(
            f"expected one target per example, got targets of shape {tuple(targets.shape)} for {len(inputs)} examples"
        )


def check_network(model: object) -> None:
    """Refuse a model whose modules cannot be put into evaluation behaviour and back."""
    if not isinstance(model, nn.Module):
        raise UnusableInput(f"expected a network, a torch.nn.Module, got {type(model).__name__}")


def check_outputs(outputs: object) -> Tensor:
    """Refuse what a network returned unless it is one tensor."""
    if not isinstance(outputs, Tensor):
        raise UnusableInput(f"expected the network to return one tensor, got {type(outputs).__name__}")
    return outputs


def check_losses(losses: object, n: int) -> Tensor:
    """Refuse what a ``loss_fn`` returned unless it is one loss per example."""
    if not isinstance(losses, Tensor) or losses.shape != (n,):
        found = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise UnusableInput(
            f"expected loss_fn to return one loss per example, shape ({n},), got {found}; "
            f'a torch criterion does with reduction="none"'
        )
    return losses
