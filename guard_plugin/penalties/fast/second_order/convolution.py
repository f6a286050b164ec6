"""A convolution, and its two gradients, as three autograd functions that differentiate into each other.

All three are partial derivatives of one form that is linear in input x, weight w and output gradient g. torch's own
second derivative takes the weight's part from a convolution with swapped axes, whose kernel is as large as an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from guard_plugin.penalties.fast.second_order.wanted import Wanted

__all__ = ["Convolution", "Geometry"]

Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]
"""Stride, padding, dilation, whether transposed, output padding, groups: as torch's operators take them."""

_BACKWARD = torch.ops.aten.convolution_backward


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
        of_x, of_w, of_b = ctx.wanted.of_layer(ctx, w, b)
        of_x = of_x and not (ctx.of_batch and ctx.wanted.gradients == "parameters")
        if not torch.is_grad_enabled():
            x_grad, w_grad, b_grad = _BACKWARD(g, x, w, [w.shape[0]], *ctx.geometry, (of_x, of_w, of_b))
            w_grad = ctx.wanted.of_weight(w, w_grad) if of_w else None
            return x_grad, w_grad, b_grad, None, None, None
        x_grad = _InputGradient.apply(g, w, [x], ctx.geometry, ctx.wanted) if of_x else None
        w_grad = _WeightGradient.apply(g, x, [w], ctx.geometry) if of_w else None
        b_grad = g.sum([0, *range(2, g.dim())]) if of_b else None
        return x_grad, w_grad, b_grad, None, None, None


class _InputGradient(Function):
    """g, w -> the gradient for x, of which only the shape matters: in a list, it is no argument of its own."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: list[Tensor], geometry: Geometry, wanted: Wanted) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.geometry, ctx.wanted = geometry, wanted
        gradient: Tensor = _BACKWARD(g, *x, w, None, *geometry, (True, False, False))[0]
        return gradient

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, w = ctx.saved_tensors
        of_g, of_w = ctx.needs_input_grad[:2]
        g_grad = Convolution.apply(v, w, None, ctx.geometry, Wanted(), False) if of_g else None
        w_grad = ctx.wanted.of_weight(w, _WeightGradient.apply(g, v, [w], ctx.geometry)) if of_w else None
        return g_grad, w_grad, None, None, None


class _WeightGradient(Function):
    """g, x -> the gradient for w, of which only the shape matters."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: list[Tensor], geometry: Geometry) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.geometry = geometry
        gradient: Tensor = _BACKWARD(g, x, *w, None, *geometry, (False, True, False))[1]
        return gradient

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        g, x = ctx.saved_tensors
        of_g, of_x = ctx.needs_input_grad[:2]
        g_grad = Convolution.apply(x, u, None, ctx.geometry, Wanted(), False) if of_g else None
        x_grad = _InputGradient.apply(g, u, [x], ctx.geometry, Wanted()) if of_x else None
        return g_grad, x_grad, None, None
