"""Group normalisation whose input gradient has a derivative in closed form.

Per example and group of N values, with mean m, r = 1 / sqrt(variance + eps), x' = (x - m) r, and P v = v - mean(v) -
x' mean(v x'): for an output gradient g, and a = w g, the gradient for x is r P a. P is symmetric, so for a cotangent
v of that gradient, and u = r P v: the derivative for g is w u, for w the sum of g u, and for x it is
-r (mean(a x') u + mean(v x') r P a) - (a . u) r x' / N. torch composes all of this from elementwise operations instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from guard_plugin.penalties.fast.second_order.wanted import Wanted

__all__ = ["GroupNorm"]


class GroupNorm(Function):
    """x, w, b -> the normalised x, times w, plus b; and x itself, which the input gradient is made to depend on.

    So x's two gradients, of the second and of the first order, meet in this function's backward pass, which adds them
    in place; torch's engine would take a new tensor for their sum.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor | None, b: Tensor | None, groups: int, eps: float, wanted: Wanted
    ) -> tuple[Tensor, Tensor]:
        """Normalise; x is contiguous."""
        y: Tensor
        y, mean, r = torch.ops.aten.native_group_norm(x, w, b, *_sizes(x), groups, eps)
        same = x.view_as(x)
        ctx.save_for_backward(same, w, b, mean, r)
        ctx.groups, ctx.eps, ctx.wanted = groups, eps, wanted
        ctx.set_materialize_grads(False)
        return y, same

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, of_same: Tensor | None) -> Any:
        """Compute the gradients that are wanted."""
        if g is None:
            return of_same, None, None, None, None, None
        x, w, b, mean, r = ctx.saved_tensors
        of_x, of_w, of_b = ctx.wanted.of_layer(ctx, w, b)
        g = g.contiguous()
        if not torch.is_grad_enabled():
            mask = [of_x, of_w, of_b]
            gradients = torch.ops.aten.native_group_norm_backward(g, x, mean, r, w, *_sizes(x), ctx.groups, mask)
            x_grad, w_grad, b_grad = gradients
            if of_same is not None and of_x:
                x_grad.add_(of_same)
            return x_grad, ctx.wanted.of_weight(w, w_grad) if of_w else None, b_grad, None, None, None
        if of_w or of_b:
            gradients = _composed(g, x, w, ctx.groups, ctx.eps, (of_x, of_w, of_b))
        else:
            gradients = [_InputGradient.apply(g, x, w, mean, r, ctx.groups, ctx.eps, ctx.wanted), None, None]
        if of_same is not None and of_x:
            gradients[0] = gradients[0] + of_same
        return *gradients, None, None, None


class _InputGradient(Function):
    """g, x, w -> the gradient for x, by torch's kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        w: Tensor | None,
        mean: Tensor,
        r: Tensor,
        groups: int,
        eps: float,
        wanted: Wanted,
    ) -> Tensor:
        n, c, _ = _sizes(x)
        weights = wanted.constant(1.0, n * c, x) if w is None else w.repeat(n)
        gradient, g_x = _gradient(g, x, mean, r, weights, groups)
        ctx.save_for_backward(g, x, w, mean, r, weights, gradient.detach(), g_x)
        ctx.groups, ctx.eps, ctx.wanted = groups, eps, wanted
        return gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        g, x, w, mean, r, weights, gradient, g_x = ctx.saved_tensors
        (n, c, values), groups = _sizes(x), ctx.groups
        rows, size = n * groups, c // groups * values
        u, v_x = _gradient(v.contiguous(), x, mean, r, ctx.wanted.constant(1.0, n * c, x), groups)
        g_u = torch.bmm(g.reshape(n * c, 1, values), u.view(n * c, values, 1)).view(n * c)
        # All three sums over groups at once: small operations cost a GPU as much as large ones.
        sums = torch.stack([g_x, g_u, v_x])
        if w is not None:
            sums[:2].mul_(weights)
        if c > groups:
            sums = sums.view(3, rows, c // groups).sum(dim=2)
        of_u, of_normalised, of_gradient = sums.mul_(r.view(rows) * (-1 / size)).unbind()
        # The normalised x is computed once more, with its factors for weights. In place, as every new tensor of this
        # size costs as much as the arithmetic on it.
        of_x = torch.ops.aten.native_group_norm(x, of_normalised, None, 1, rows, size, rows, ctx.eps)[0]
        for values_of, factor in ((u, of_u), (gradient, of_gradient)):
            of_x.view(rows, size).addcmul_(values_of.view(rows, size), factor.view(rows, 1))
        of_w = None if w is None else ctx.wanted.of_weight(w, g_u.view(n, c).sum(dim=0))
        of_g = u if w is None else u.mul_(weights.view(n, c, *[1] * (x.dim() - 2)))
        return of_g, of_x.view(x.shape), of_w, None, None, None, None, None


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Return the numbers of examples, channels, and values per channel."""
    n, c = x.shape[:2]
    return n, c, x.shape[2:].numel()


def _gradient(g: Tensor, x: Tensor, mean: Tensor, r: Tensor, weights: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return the gradient for x, and each example's and channel's inner product of g and x', shape (n * c,).

    To torch's kernel all examples are one with n times as many channels, of n * c weights, so that it does not sum the
    weight's gradient over examples: that is the inner product.
    """
    n, c, values = _sizes(x)
    mask = [True, True, False]
    gradient, g_x, _ = torch.ops.aten.native_group_norm_backward(
        g, x, mean, r, weights, 1, n * c, values, n * groups, mask
    )
    return gradient, g_x


def _composed(g: Tensor, x: Tensor, w: Tensor | None, groups: int, eps: float, needed: tuple[bool, ...]) -> list[Any]:
    """Compute the gradients from elementary operations, where the parameters' gradients are differentiated again."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    grouped = x.reshape(len(x), groups, -1)
    variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
    normalised = ((grouped - mean) * (variance + eps).rsqrt()).reshape(x.shape)
    of_x, of_w, of_b = needed
    scaled = g if w is None else g * w.view(shape)
    over = [0, *range(2, x.dim())]
    return [
        torch.autograd.grad(normalised, x, scaled, create_graph=True)[0] if of_x else None,
        (g * normalised).sum(over) if of_w else None,
        g.sum(over) if of_b else None,
    ]
