"""Batch normalisation by running statistics, whose input gradient has a derivative in closed form.

With running mean m, r = 1 / sqrt(running variance + eps) and weight w per channel, y = (x - m) r w + b is linear in x:
for an output gradient g, the gradient for x is g r w. Its derivative, for a cotangent v, is v r w for g, the sum of
g v r for w, and 0 for x. One call of torch's own kernel gives both: it is asked for the gradients of a normalisation
of g by mean 0, for the output gradient v. torch's own second derivative adds up many terms that are 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from guard_plugin.penalties.fast.second_order.wanted import Wanted

__all__ = ["FrozenBatchNorm"]

_BACKWARD = torch.ops.aten.native_batch_norm_backward


class FrozenBatchNorm(Function):
    """x, w, b -> x normalised by running statistics, times w, plus b."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor | None,
        b: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        wanted: Wanted,
    ) -> Tensor:
        """Normalise, by the kernel that the plain run takes."""
        ctx.save_for_backward(x, w, b, mean, variance)
        ctx.eps, ctx.wanted = eps, wanted
        y: Tensor = torch.batch_norm(x, w, b, mean, variance, False, 0.0, eps, torch.backends.cudnn.enabled)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Compute the gradients that are wanted."""
        x, w, b, mean, variance = ctx.saved_tensors
        of_x, of_w, of_b = ctx.wanted.of_layer(ctx, w, b)
        if not torch.is_grad_enabled():
            mask = [of_x, of_w, of_b]
            gradients = _BACKWARD(g, x, w, mean, variance, None, None, False, ctx.eps, mask)
            x_grad, w_grad, b_grad = gradients
            return x_grad, ctx.wanted.of_weight(w, w_grad) if of_w else None, b_grad, None, None, None, None
        x_grad = _InputGradient.apply(g, w, [x], mean, variance, ctx.eps, ctx.wanted) if of_x else None
        over = [0, *range(2, g.dim())]
        w_grad = (g * (x - _per_channel(mean, x))).sum(over) * (variance + ctx.eps).rsqrt() if of_w else None
        return x_grad, w_grad, g.sum(over) if of_b else None, None, None, None, None


class _InputGradient(Function):
    """g, w -> the gradient for x, of which only the shape matters: in a list, it is no argument of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        w: Tensor | None,
        x: list[Tensor],
        mean: Tensor,
        variance: Tensor,
        eps: float,
        wanted: Wanted,
    ) -> Tensor:
        ctx.save_for_backward(g, w, variance)
        ctx.eps, ctx.wanted = eps, wanted
        gradient: Tensor = _BACKWARD(g, *x, w, mean, variance, None, None, False, eps, [True, False, False])[0]
        return gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        g, w, variance = ctx.saved_tensors
        of_g, of_w = ctx.needs_input_grad[:2]
        if v.stride() != g.stride():  # which torch's CPU kernel may mix up
            v, g = v.contiguous(), g.contiguous()
        zero = ctx.wanted.constant(0.0, len(variance), variance)
        g_grad, w_grad, _ = _BACKWARD(v, g, w, zero, variance, None, None, False, ctx.eps, [of_g, of_w, False])
        return g_grad, ctx.wanted.of_weight(w, w_grad) if of_w else None, None, None, None, None, None


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.dim() - 2))
