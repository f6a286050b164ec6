"""Giving a network's passes the operations of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard_plugin.penalties.fast.second_order.average_pool import AveragePool, Pooling
from guard_plugin.penalties.fast.second_order.batch_norm import FrozenBatchNorm
from guard_plugin.penalties.fast.second_order.convolution import Convolution, Geometry
from guard_plugin.penalties.fast.second_order.cross_entropy import CrossEntropy
from guard_plugin.penalties.fast.second_order.group_norm import GroupNorm
from guard_plugin.penalties.fast.second_order.linear import Linear
from guard_plugin.penalties.fast.second_order.relu import ReLU
from guard_plugin.penalties.fast.second_order.wanted import Wanted
from guard_plugin.penalties.graph import batch_cut_off, gradient_for_batch
from guard_plugin.versions import (
    SAVED_TENSORS_TELL,
    TorchFunctionMode,
    is_autocast_enabled,
    is_transformed,
    plain_attention,
    saved_tensors_are_hooked,
    untraced,
)

__all__ = ["SecondOrder"]


class SecondOrder(TorchFunctionMode):
    """While entered, convolutions and normalisations are this package's: same values, same derivatives.

    They compute them by the kernels of torch's own first derivatives. Up to rounding nothing changes but the cost.

    Args:
        batch: The leaf tensor that the network's input is computed from.
    """

    def __init__(self, batch: Tensor) -> None:
        super().__init__()
        self.batch = batch
        self._wanted = Wanted()
        self._attention = ExitStack()

    def __enter__(self) -> SecondOrder:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._attention.enter_context(plain_attention())
        return self

    def __exit__(self, *error: Any) -> None:
        self._attention.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def gradient_of_batch(self, losses: Tensor) -> Tensor:
        """Return the losses' gradient for the batch, to be differentiated again.

        UnsupportedLoss is raised if there is none, or if it is a constant.
        """
        with self._only("inputs"):
            gradient = gradient_for_batch(losses, self.batch, create_graph=True)
        if not gradient.requires_grad:
            raise batch_cut_off()
        return gradient

    def for_parameters(self, take: Callable[[Tensor, Tensor], None]) -> AbstractContextManager[None]:
        """Spare backward passes made inside the gradient for the batch, which they must not ask for.

        ``take`` gets a weight and a contribution to its gradient, which the pass then does not return.
        """
        # A weight that hooks have saved would not be known again.
        return self._only("parameters", take if SAVED_TENSORS_TELL else None)

    @contextmanager
    def _only(
        self, gradients: Literal["inputs", "parameters"], take: Callable[[Tensor, Tensor], None] | None = None
    ) -> Iterator[None]:
        self._wanted.gradients, self._wanted.take = gradients, take
        try:
            yield
        finally:
            self._wanted.gradients, self._wanted.take = "everything", None

    @untraced
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take over what this package has, where it is plain; leave everything else to torch."""
        kwargs, ours = kwargs or {}, _OURS.get(func)
        result = ours(self, *args, **kwargs) if ours is not None and _plain(args, kwargs) else None
        return func(*args, **kwargs) if result is None else result

    # Each of these returns None where torch's own function is to be called.

    def _group_norm(
        self,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Any:
        if input.dim() < 3 or input.numel() == 0 or input.shape[1] % num_groups or not input.is_contiguous():
            return None  # of another memory format too: the result's would be another one than in the plain run
        # Outside of the function: what it is given must be what it saves, or the second derivative loses its way.
        return GroupNorm.apply(input, weight, bias, num_groups, eps, self._wanted)[0]

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Any:
        if training or running_mean is None or running_var is None or input.dim() < 2 or input.numel() == 0:
            return None
        if running_mean.requires_grad or running_var.requires_grad:
            return None
        return FrozenBatchNorm.apply(input, weight, bias, running_mean, running_var, eps, self._wanted)

    def _convolution(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        count: int,
    ) -> Any:
        if isinstance(padding, str) or input.dim() != count + 2 or input.numel() == 0:
            return None
        strides, paddings, dilations = (_each(value, count) for value in (stride, padding, dilation))
        geometry: Geometry = (strides, paddings, dilations, False, [0] * count, groups)
        return Convolution.apply(input, weight, bias, geometry, self._wanted, self._is_batch(input))

    def _relu(self, input: Tensor, inplace: bool = False) -> Any:
        return None if inplace and (input._is_view() or not input.requires_grad) else ReLU.apply(input, inplace)

    def _average_pool(
        self,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        sizes = _each(kernel_size, 2)
        steps = _each(stride, 2) if stride else sizes
        pooling: Pooling = (sizes, steps, _each(padding, 2), ceil_mode, count_include_pad, divisor_override)
        return AveragePool.apply(input, pooling)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        are_matrices = input.dim() == 2 and weight.dim() == 2
        return Linear.apply(input, weight, bias, self._wanted) if are_matrices else None

    def _cross_entropy(
        self,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Any:
        deprecated = size_average is not None or reduce is not None
        is_of_classes = input.dim() == 2 and target.dim() == 1 and not target.is_floating_point()
        if reduction != "none" or label_smoothing or deprecated or not is_of_classes or input.numel() == 0:
            return None
        return CrossEntropy.apply(input, target, weight, ignore_index)

    def _is_batch(self, tensor: Tensor) -> bool:
        """Tell whether a tensor was computed from the batch alone, by one operation."""
        node = tensor.grad_fn
        if node is None or len(node.next_functions) != 1:
            return False
        return getattr(node.next_functions[0][0], "variable", None) is self.batch


_OURS: dict[Any, Callable[..., Any]] = {
    functional.conv1d: partial(SecondOrder._convolution, count=1),
    functional.conv2d: partial(SecondOrder._convolution, count=2),
    functional.conv3d: partial(SecondOrder._convolution, count=3),
    functional.group_norm: SecondOrder._group_norm,
    functional.batch_norm: SecondOrder._batch_norm,
    functional.relu: SecondOrder._relu,
    functional.avg_pool2d: SecondOrder._average_pool,
    functional.linear: SecondOrder._linear,
    functional.cross_entropy: SecondOrder._cross_entropy,
}


def _plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether all tensors are torch's own and of one precision (or classes), and nothing transforms the call."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    # Under hooks on saved tensors, such as torch.utils.checkpoint's, a function does not get back what it saved. Where
    # torch does not tell (before 2.8), a network with checkpoints fails unless path is "reference".
    if not tensors or saved_tensors_are_hooked() or is_transformed() or is_autocast_enabled(tensors[0].device.type):
        return False
    first = tensors[0]
    return first.is_floating_point() and all(
        type(one) in (Tensor, nn.Parameter) and one.dtype in (first.dtype, torch.int64) for one in tensors
    )


def _each(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values
