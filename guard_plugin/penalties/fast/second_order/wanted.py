"""What the operations of one forward pass are asked to compute in their backward passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Wanted"]


@dataclass
class Wanted:
    """Which gradients the operations of one forward pass shall compute in their backward passes.

    torch does not tell an autograd function that is written in Python which ones are needed.

    Args:
        gradients: "everything"; "inputs": no gradient of weights and biases that are leaves; "parameters": no gradient
            of the network's batch.
        take: Takes each contribution to the gradient of a weight that is a leaf. A second-order backward pass makes
            two, and torch's engine would hold the first ones of all layers until the second ones come, and add them up
            one by one.
    """

    gradients: Literal["everything", "inputs", "parameters"] = "everything"
    take: Callable[[Tensor, Tensor], None] | None = None
    _constants: dict[Any, Tensor] = field(default_factory=dict)

    def of_layer(self, ctx: Any, w: Any, b: Any) -> tuple[bool, bool, bool]:
        """Whether a layer's gradients for its input, weight and bias are needed, which are its first arguments."""
        of_x, of_w, of_b = ctx.needs_input_grad[:3]
        if self.gradients == "inputs":  # w or b may be computed from the batch
            of_w, of_b = of_w and not w.is_leaf, of_b and not b.is_leaf
        return of_x, of_w, of_b

    def of_weight(self, weight: Tensor, gradient: Tensor | None) -> Tensor | None:
        """Return a contribution to a weight's gradient for the engine to pass on, or give it to ``take``."""
        if self.take is None or gradient is None or not weight.is_leaf:
            return gradient
        self.take(weight, gradient)
        return None

    def constant(self, value: float, size: int, like: Tensor) -> Tensor:
        """Return a vector of one value, which is made once per pass and must not be modified."""
        key = value, size, like.dtype, like.device
        if key not in self._constants:
            self._constants[key] = torch.full((size,), value, dtype=like.dtype, device=like.device)
        return self._constants[key]
