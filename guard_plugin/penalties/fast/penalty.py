"""A penalty whose gradient is computed at once, before the host's backward pass."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from guard_plugin.penalties.base import Penalty
from guard_plugin.penalties.fast.precomputed import PrecomputedGradient
from guard_plugin.penalties.fast.shared_forward import SharedForward
from guard_plugin.penalties.per_example import Losses

__all__ = ["FastPenalty", "Path"]

Path = Literal["shared", "separate", "reference"]
"""How a penalty's gradient is computed: "reference" differentiates torch's own graph of passes that the penalty makes;
"separate" makes such passes too, and computes the gradient at once; "shared" computes it at once, with the host's own
forward pass as one of the passes. Every penalty has "reference"; a :class:`FastPenalty` has all three."""


@dataclass(frozen=True, kw_only=True)
class FastPenalty(Penalty):
    """A penalty that can also compute its value and its parameters' gradient at once."""

    @property
    @abstractmethod
    def differentiates_twice(self) -> bool:
        """Whether the penalty's gradient is a gradient of input gradients."""

    @abstractmethod
    def in_parts(self, losses: Losses, inputs: Tensor, *, size: int, low_memory: bool) -> PrecomputedGradient:
        """Compute the term and its gradient at once, in passes of at most ``size`` examples.

        Args:
            losses: The network, its n targets and the host's criterion per example.
            inputs: The batch, shape (n, ...).
            size: How many examples a pass may take, >= 1.
            low_memory: Whether to hold as little memory as possible, where that takes more passes.
        """

    @abstractmethod
    def on_host(
        self, losses: Losses, shared: SharedForward, output: Tensor, loss: Tensor
    ) -> tuple[PrecomputedGradient, Tensor] | None:
        """Compute the host's loss plus the term, with their gradient, at once, and the term alone.

        Args:
            losses: The network, its n targets and the host's criterion per example.
            shared: The host's own forward pass.
            output: What the network returned in it.
            loss: What the host's criterion made of the output.

        Returns:
            The sum with its gradient, and the term; None where the host's pass cannot serve for the host's loss.
        """
