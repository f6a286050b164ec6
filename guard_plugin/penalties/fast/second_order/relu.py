"""The rectifier, of which torch's own second derivative adds up a term that is 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["ReLU"]


class ReLU(Function):
    """x -> its positive part; in x itself where it works in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        """Rectify."""
        y = torch.relu_(x) if inplace else torch.relu(x)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Pass on the gradients of what was positive."""
        (y,) = ctx.saved_tensors
        return _WherePositive.apply(g, [y]), None


class _WherePositive(Function):
    """g -> g where y is positive, else 0. The list keeps y from being an argument, which would have a gradient."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: list[Tensor]) -> Tensor:
        ctx.save_for_backward(*y)
        masked: Tensor = torch.ops.aten.threshold_backward(g, *y, 0)
        return masked

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return _WherePositive.apply(v, list(ctx.saved_tensors)), None
