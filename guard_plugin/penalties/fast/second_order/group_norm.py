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

from guard_plugin.penalties.fast.second_order.convolution import Wanted

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
        of_x, of_w, of_b = ctx.needs_input_grad[:3]
        of_w, of_b = of_w and ctx.wanted.parameter(w), of_b and ctx.wanted.parameter(b)
        g = g.contiguous()
        if not torch.is_grad_enabled():
            mask = [of_x, of_w, of_b]
            gradients = torch.ops.aten.native_group_norm_backward(g, x, mean, r, w, *_sizes(x), ctx.groups, mask)
            if of_same is not None and of_x:
                gradients[0].add_(of_same)
            return *gradients, None, None, None
        if of_w or of_b:
            gradients = _composed(g, x, w, ctx.groups, ctx.eps, (of_x, of_w, of_b))
        else:
            gradients = [_InputGradient.apply(g, x, w, mean, r, ctx.groups), None, None]
        if of_same is not None and of_x:
            gradients[0] = gradients[0] + of_same
        return *gradients, None, None, None


class _InputGradient(Function):
    """g, x, w -> the gradient for x, by torch's kernel."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor | None, mean: Tensor, r: Tensor, groups: int) -> Tensor:
        gradient, g_x = _gradient(g, x, mean, r, w, groups)
        ctx.save_for_backward(g, x, w, mean, r, gradient, g_x)
        ctx.groups = groups
        return gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        g, x, w, mean, r, gradient, g_x = ctx.saved_tensors
        (n, c, values), groups = _sizes(x), ctx.groups
        u, v_x = _gradient(v.contiguous(), x, mean, r, None, groups)
        rows, size = n * groups, c // groups * values
        g_u = torch.bmm(g.reshape(n * c, 1, values), u.reshape(n * c, values, 1)).reshape(n, c)
        # All three sums over groups at once: small operations cost a GPU as much as large ones.
        weighted = torch.stack([g_x, g_u])
        if w is not None:
            weighted.mul_(w)
        sums = torch.cat([weighted, v_x.unsqueeze(0)]).reshape(3, rows, c // groups).sum(dim=2)
        of_u, of_centred, of_gradient = sums.mul_(r.reshape(rows) * (-1 / size)).unsqueeze(2)
        of_centred.mul_(r.reshape(rows, 1))
        shift = (of_centred * mean.reshape(rows, 1)).neg_()
        # In place, as every new tensor of this size costs as much as the arithmetic on it.
        of_x = torch.addcmul(shift, x.reshape(rows, size), of_centred)
        of_x.addcmul_(u.reshape(rows, size), of_u).addcmul_(gradient.reshape(rows, size), of_gradient)
        of_w = None if w is None else g_u.sum(dim=0)
        of_g = u if w is None else u.mul_(w.view(1, c, *[1] * (x.dim() - 2)))
        return of_g, of_x.reshape(x.shape), of_w, None, None, None


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Return the numbers of examples, channels, and values per channel."""
    n, c = x.shape[:2]
    return n, c, x[0, 0].numel()


def _gradient(g: Tensor, x: Tensor, mean: Tensor, r: Tensor, w: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
    """Return the gradient for x, and each example's and channel's inner product of g and x', shape (n, c).

    To torch's kernel all examples are one with n times as many channels, so that it does not sum the weight's gradient
    over examples: that is the inner product.
    """
    n, c, values = _sizes(x)
    weights = torch.ones(n * c, dtype=x.dtype, device=x.device) if w is None else w.repeat(n)
    g, x_as_one = g.reshape(1, n * c, values), x.reshape(1, n * c, values)
    mean, r, mask = mean.reshape(1, n * groups), r.reshape(1, n * groups), [True, True, False]
    gradient, g_x, _ = torch.ops.aten.native_group_norm_backward(
        g, x_as_one, mean, r, weights, 1, n * c, values, n * groups, mask
    )
    return gradient.reshape(x.shape), g_x.reshape(n, c)


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
