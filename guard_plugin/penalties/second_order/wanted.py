"""Which gradients a backward pass is after: a Python-level autograd function is not told."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Wanted"]


@dataclass
class Wanted:
    """What the operations of one forward pass shall compute in their backward passes.

    Args:
        gradients: "inputs": none for weights and biases; "parameters": none for the network's own batch.
    """

    gradients: Literal["everything", "inputs", "parameters"] = "everything"

    @property
    def parameters(self) -> bool:
        """Whether gradients for weights and biases are needed."""
        return self.gradients != "inputs"

    def inputs(self, *, of_batch: bool) -> bool:
        """Whether an operation's gradient for its input is needed, which may be the network's batch."""
        return not (of_batch and self.gradients == "parameters")
