"""A linear layer on a batch of vectors, whose gradients are products of matrices without a transposed copy.

For x, w and an output gradient g, the gradient for x is g w. Its derivative, for a cotangent v, is v w' for g, and g' v
for w: both contributions to the weight's gradient are handed over, as a convolution's are.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from guard_plugin.penalties.fast.second_order.wanted import Wanted

__all__ = ["Linear"]


class Linear(Function):
    """x, w, b -> x w' + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, wanted: Wanted) -> Tensor:
        """Multiply and add."""
        ctx.save_for_backward(x, w, b)
        ctx.wanted = wanted
        return functional.linear(x, w, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Compute the gradients that are wanted."""
        x, w, b = ctx.saved_tensors
        of_x, of_w, of_b = ctx.wanted.of_layer(ctx, w, b)
        w_grad = g.t().mm(x) if of_w else None
        b_grad = g.sum(0) if of_b else None
        x_grad = _InputGradient.apply(g, w, ctx.wanted) if of_x else None
        return x_grad, ctx.wanted.of_weight(w, w_grad), b_grad, None


class _InputGradient(Function):
    """g, w -> the gradient for x."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, wanted: Wanted) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.wanted = wanted
        return g.mm(w)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, w = ctx.saved_tensors
        of_g, of_w = ctx.needs_input_grad[:2]
        w_grad = ctx.wanted.of_weight(w, g.t().mm(v)) if of_w else None
        return functional.linear(v, w) if of_g else None, w_grad, None
