"""What is measured: a network and a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard_plugin.networks.architectures import build_network

__all__ = ["Batch", "Case", "Loss"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """What is measured: a network and a batch."""

    arch: str
    batch_size: int
    size: int
    classes: int
    steps: int
    seed: int
    clock: str
    threads: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.arch}-{self.size}px-batch{self.batch_size}"

    def build(self, device: torch.device) -> tuple[nn.Module, Batch]:
        """The network, and a batch of normalised noise with random labels."""
        torch.manual_seed(self.seed)
        network = build_network(self.arch, channels=3, num_classes=self.classes, im_size=(self.size, self.size))
        images = torch.randn(self.batch_size, 3, self.size, self.size)
        labels = torch.randint(self.classes, (self.batch_size,))
        return network.to(device).train(), (images.to(device), labels.to(device))
