"""Which gradients a backward pass is after: a Python-level autograd function is not told."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Wanted"]


@dataclass
class Wanted:
    """What the operations of one forward pass shall compute in their backward passes.

    Args:
        gradients: "inputs": none for weights and biases that are leaves; "parameters": none for the network's batch.
    """

    gradients: Literal["everything", "inputs", "parameters"] = "everything"

    def parameter(self, tensor: Tensor | None) -> bool:
        """Whether an operation's gradient for a weight or bias is needed; one may be computed from the batch."""
        return tensor is not None and not (self.gradients == "inputs" and tensor.is_leaf)

    def inputs(self, *, of_batch: bool) -> bool:
        """Whether an operation's gradient for its input is needed, which may be the network's batch."""
        return not (of_batch and self.gradients == "parameters")
