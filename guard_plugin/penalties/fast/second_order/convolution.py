"""A convolution, and its two gradients, as three autograd functions that differentiate into each other.

All three are partial derivatives of one form that is linear in input x, weight w and output gradient g. torch's own
second derivative takes the weight's part from a convolution with swapped axes, whose kernel is as large as an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["Convolution", "Geometry", "Wanted"]

Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]
"""Stride, padding, dilation, whether transposed, output padding, groups: as torch's operators take them."""

_BACKWARD = torch.ops.aten.convolution_backward


@dataclass
class Wanted:
    """Which gradients the operations of one forward pass shall compute in their backward passes.

    torch does not tell an autograd function that is written in Python which ones are needed.

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


class Convolution(Function):
    """x, w, b -> x * w + b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, wanted: Wanted, of_batch: bool
    ) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(x, w, b)
        ctx.geometry, ctx.wanted, ctx.of_batch = geometry, wanted, of_batch
        convolved: Tensor = torch.ops.aten.convolution(x, w, b, *geometry)
        return convolved

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Compute the gradients that are wanted."""
        x, w, b = ctx.saved_tensors
        of_x, of_w, of_b = ctx.needs_input_grad[:3]
        of_x = of_x and ctx.wanted.inputs(of_batch=ctx.of_batch)
        of_w, of_b = of_w and ctx.wanted.parameter(w), of_b and ctx.wanted.parameter(b)
        if not torch.is_grad_enabled():
            x_grad, w_grad, b_grad = _BACKWARD(g, x, w, [w.shape[0]], *ctx.geometry, (of_x, of_w, of_b))
            w_grad = ctx.wanted.of_weight(w, w_grad) if of_w else None
            return x_grad, w_grad, b_grad, None, None, None
        x_grad = _InputGradient.apply(g, w, x.detach(), ctx.geometry, ctx.wanted) if of_x else None
        w_grad = _WeightGradient.apply(g, x, w.detach(), ctx.geometry) if of_w else None
        b_grad = g.sum([0, *range(2, g.dim())]) if of_b else None
        return x_grad, w_grad, b_grad, None, None, None


class _InputGradient(Function):
    """g, w -> the gradient for x. Only the shape of x matters, but torch would copy a tensor made to tell it."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: Tensor, geometry: Geometry, wanted: Wanted) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.geometry, ctx.wanted = geometry, wanted
        gradient: Tensor = _BACKWARD(g, x, w, None, *geometry, (True, False, False))[0]
        return gradient

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, w = ctx.saved_tensors
        of_g, of_w = ctx.needs_input_grad[:2]
        g_grad = Convolution.apply(v, w, None, ctx.geometry, Wanted(), False) if of_g else None
        w_grad = ctx.wanted.of_weight(w, _WeightGradient.apply(g, v, w.detach(), ctx.geometry)) if of_w else None
        return g_grad, w_grad, None, None, None


class _WeightGradient(Function):
    """g, x -> the gradient for w. Only the shape of w matters."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.geometry = geometry
        gradient: Tensor = _BACKWARD(g, x, w, None, *geometry, (False, True, False))[1]
        return gradient

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        g, x = ctx.saved_tensors
        of_g, of_x = ctx.needs_input_grad[:2]
        g_grad = Convolution.apply(x, u, None, ctx.geometry, Wanted(), False) if of_g else None
        x_grad = _InputGradient.apply(g, u, x.detach(), ctx.geometry, Wanted()) if of_x else None
        return g_grad, x_grad, None, None
