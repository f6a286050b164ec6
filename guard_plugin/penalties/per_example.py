"""The host's loss per example, in full precision: every penalty is computed from it."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard_plugin.penalties.base import LossFunction
from guard_plugin.penalties.checks import check_losses
from guard_plugin.penalties.passes import outputs_of

__all__ = ["Losses", "cross_entropy", "full_precision", "unit"]

cross_entropy = partial(functional.cross_entropy, reduction="none")
"""Maps outputs, shape (n, classes), and targets to n losses."""


@dataclass(frozen=True)
class Losses:
    """The per-example losses of a network on fixed targets, as a function of its inputs."""

    network: nn.Module
    targets: Tensor
    loss_fn: LossFunction

    def __call__(self, inputs: Tensor) -> Tensor:
        """Make one pass, and return n losses."""
        return self.of_outputs(outputs_of(self.network, inputs))

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """Return the n losses of what the network returned."""
        return check_losses(self.loss_fn(outputs, self.targets), len(self.targets))


def full_precision(inputs: Tensor, targets: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    """Return inputs in at least the parameters' precision, and targets that are not of half precision.

    Under autocast a host may hand over float16; a penalty's passes run with autocast off. Inputs of the precision that
    some parameters have stay as they are: a network may have a few in another one.
    """
    of_parameters = (p.dtype for p in network.parameters() if p.is_floating_point())
    first = next(of_parameters, inputs.dtype)
    if inputs.dtype != first and inputs.dtype not in of_parameters:
        inputs = inputs.to(torch.promote_types(inputs.dtype, first))
    half = targets.dtype in (torch.float16, torch.bfloat16)
    return inputs, targets.float() if half else targets


def unit(gradient: Tensor) -> Tensor:
    """Scale each example's gradient to length 1 (0 stays 0), without underflow where it is tiny."""
    flat = gradient.detach().reshape(len(gradient), -1)
    largest = torch.linalg.vector_norm(flat, float("inf"), dim=1, keepdim=True)
    flat = flat / largest.masked_fill(largest == 0, 1)
    lengths = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return torch.div(flat, lengths.clamp_min_(1.0)).reshape(gradient.shape)
