"""Where a network computes."""

import torch
from torch import nn

__all__ = ["device_of"]


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's first parameter; the CPU if it has none."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
