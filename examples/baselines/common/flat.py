"""A network as a function of its images and of one vector that holds all its parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.func import functional_call


def flatten(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """Tensors as one vector."""
    return torch.cat([parameter.reshape(-1) for parameter in parameters])


class FlatNetwork:
    """Calls a network with parameters from a vector, through which gradients of any order flow; it keeps none itself.

    BatchNorm normalises by the batch at hand: a trajectory holds parameters only, so there are no running statistics
    that would belong to them, and calls leave nothing behind.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net.requires_grad_(False).train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = False
        self._shapes = {name: parameter.shape for name, parameter in net.named_parameters()}

    def __call__(self, images: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in self._shapes.values()])
        parameters = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts)}
        return functional_call(self._net, parameters, (images,))
