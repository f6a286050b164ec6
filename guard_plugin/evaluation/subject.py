"""The subject of a benchmark: the networks that it measures."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from guard_plugin.evaluation.distributed import Group
from guard_plugin.evaluation.folder import BenchmarkFolder

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject(ABC):
    """The networks that a benchmark measures, and what its files say about them.

    Args:
        description: "subject" of results.json.
        protocol: The entries "arch", "normalization", "recipe" and "seeds" of the protocol.
        identity: What the numbers depend on besides the protocol, as JSON values.
    """

    description: Mapping[str, Any]
    protocol: Mapping[str, Any]
    identity: Mapping[str, Any]

    @property
    def count(self) -> int:
        """How many networks there are."""
        return int(self.protocol["seeds"])

    def prepare(self, folder: BenchmarkFolder, group: Group, device: torch.device) -> None:  # noqa: B027
        """Do, on the device, what must be done before the first network can be measured; by default, nothing."""

    @abstractmethod
    def pixel_model(self, folder: BenchmarkFolder, k: int) -> nn.Module:
        """Return network k in pixel space, in eval mode."""
