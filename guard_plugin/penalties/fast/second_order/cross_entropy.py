"""Cross entropy per example, whose input gradient has a derivative in closed form.

With p = softmax(z) and B the gradient of the losses for log p, which does not depend on z, the gradient for z is
B - p s, s the sum of B over classes. Its derivative, for a cotangent v, is -s (p v - p (p . v)) for z: but for the
factor, the gradient of the softmax itself. torch composes this, and a term that is 0, from elementwise operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

__all__ = ["CrossEntropy"]

_NO_REDUCTION = 0


class CrossEntropy(Function):
    """z, shape (n, classes), and n classes -> n losses, by the kernels that the plain run takes."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, classes: Tensor, weight: Tensor | None, ignored: int) -> Tensor:
        """Compute the losses; those of the ``ignored`` class are 0."""
        log_p = torch.log_softmax(z, 1)
        losses, total = torch.ops.aten.nll_loss_forward(log_p, classes, weight, _NO_REDUCTION, ignored)
        ctx.save_for_backward(z, log_p, classes, weight, total)
        ctx.ignored = ignored
        loss: Tensor = losses
        return loss

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Compute the gradient for z."""
        z, *kept = ctx.saved_tensors
        return _InputGradient.apply(g, z, kept, ctx.ignored), None, None, None


class _InputGradient(Function):
    """g, z -> the gradient for z."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, z: Tensor, kept: list[Any], ignored: int) -> Tensor:
        log_p, classes, weight, total = kept
        of_log_p = torch.ops.aten.nll_loss_backward(g, log_p, classes, weight, _NO_REDUCTION, ignored, total)
        ctx.save_for_backward(log_p, classes, weight, of_log_p)
        ctx.ignored = ignored
        gradient: Tensor = torch.ops.aten._log_softmax_backward_data(of_log_p, log_p, 1, z.dtype)
        return gradient

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        log_p, classes, weight, of_log_p = ctx.saved_tensors
        of_g, of_z = ctx.needs_input_grad[:2]
        g_grad = z_grad = None
        p = log_p.exp()
        if of_z:
            centred = torch.ops.aten._softmax_backward_data(v, p, 1, v.dtype)
            z_grad = centred.mul_(of_log_p.sum(1, keepdim=True)).neg_()
        if of_g:
            v = v - (p * v).sum(1, keepdim=True)
            g_grad = torch.ops.aten.nll_loss_forward(v, classes, weight, _NO_REDUCTION, ctx.ignored)[0]
        return g_grad, z_grad, None, None
