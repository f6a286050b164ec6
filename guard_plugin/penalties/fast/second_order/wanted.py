"""Which gradients a backward pass needs: torch does not tell an autograd function that is written in Python."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["Wanted"]


@dataclass
class Wanted:
    """Which gradients the operations of one forward pass shall compute in their backward passes.

    Args:
        gradients: "everything"; "inputs": no gradient of weights and biases that are leaves; "parameters": no gradient
            of the network's batch.
        take: Takes each contribution to the gradient of a convolution's weight that is a leaf. A second-order backward
            pass makes two, and torch's engine would hold the first ones of all layers until the second ones come.
    """

    gradients: Literal["everything", "inputs", "parameters"] = "everything"
    take: Callable[[Tensor, Tensor], None] | None = None

    def parameter(self, tensor: Tensor | None) -> bool:
        """Whether an operation's gradient for a weight or bias is needed; one may be computed from the batch."""
        return tensor is not None and not (self.gradients == "inputs" and tensor.is_leaf)

    def inputs(self, *, of_batch: bool) -> bool:
        """Whether an operation's gradient for its input is needed, which may be the network's batch."""
        return not (of_batch and self.gradients == "parameters")

    def of_weight(self, weight: Tensor, gradient: Tensor) -> Tensor | None:
        """Return a contribution to a weight's gradient for the engine to pass on, or give it to ``take``."""
        if self.take is None or not weight.is_leaf:
            return gradient
        self.take(weight, gradient)
        return None
