"""Average pooling in two dimensions, of which torch's own second derivative adds up a term that is 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["AveragePool", "Pooling"]

Pooling = tuple[list[int], list[int], list[int], bool, bool, "int | None"]
"""Kernel size, stride, padding, ceil mode, whether padding counts, divisor: as torch's operators take them."""


class AveragePool(Function):
    """x -> its averages."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pooling: Pooling) -> Tensor:
        """Average."""
        ctx.save_for_backward(x)
        ctx.pooling = pooling
        averages: Tensor = torch.ops.aten.avg_pool2d(x, *pooling)
        return averages

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Spread the gradients."""
        return _Spread.apply(g, list(ctx.saved_tensors), ctx.pooling), None


class _Spread(Function):
    """g -> the gradient for x, of which only the shape matters: in a list, it is no argument of its own."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: list[Tensor], pooling: Pooling) -> Tensor:
        ctx.pooling = pooling
        gradient: Tensor = torch.ops.aten.avg_pool2d_backward(g, *x, *pooling)
        return gradient

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return AveragePool.apply(v, ctx.pooling), None, None
