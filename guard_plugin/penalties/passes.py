"""One pass of a penalty: right where torch's own kernels are not, and each pass alike."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from guard_plugin.errors import UnusableInput
from guard_plugin.penalties.attributes import attributes_kept
from guard_plugin.penalties.undisturbed import random_streams_kept
from guard_plugin.versions import TorchFunctionMode, untraced

__all__ = ["alike", "normalises_one_example", "outputs_of"]


def outputs_of(network: nn.Module, inputs: Tensor, *, seed: int | None = None) -> Tensor:
    """Make one pass, as :func:`alike`.

    Args:
        network: It must return one tensor.
        inputs: Its batch, shape (n, ...), which a network that works in place does not modify.
        seed: Where the random streams begin; by default they are those of the caller. They are put back afterwards.
    """
    with alike(network, inputs.device, seed=seed):
        # A copy, because a network may begin with an in-place operation, which a leaf would not survive.
        outputs = network(inputs.clone())
    if not isinstance(outputs, Tensor):
        raise UnusableInput(f"expected the network to return one tensor, got {type(outputs).__name__}")
    return outputs


@contextmanager
def alike(network: nn.Module, device: torch.device, *, seed: int | None = None) -> Iterator[list[str]]:
    """Put back what a pass changes in random streams, and in a network's attributes and generators.

    So a network that draws random numbers draws the same ones in each pass. torch.utils.checkpoint has no part in the
    pass: its recomputation would take place when the network behaves as in training again, or not at all. The list that
    the block gets then holds the names of what was called for it.
    """
    exact = _ExactNorms() if device.type == "cpu" else nullcontext()
    hooks = nullcontext() if torch.is_grad_enabled() else _NoHooks()
    kept = random_streams_kept(device, seed=seed)
    with kept, attributes_kept(network), _without_checkpoints() as called, exact, hooks:
        yield called


_checkpoint_lock = threading.RLock()


@contextmanager
def _without_checkpoints() -> Iterator[list[str]]:
    called: list[str] = []

    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        called.append("use_reentrant=True")
        return function(*args)

    def no_recomputation(*args: Any, **kwargs: Any) -> Iterator[None]:
        called.append("use_reentrant=False")
        yield

    def no_checkpoint(function: Callable[..., Any], preserve: bool, *args: Any, **kwargs: Any) -> Any:
        called.append("use_reentrant=False")
        return function(*args, **kwargs)

    # What torch.utils.checkpoint.checkpoint calls: with use_reentrant=True, and without it in torch 1.11, 2.1 and 2.14.
    direct = {
        "CheckpointFunction": SimpleNamespace(apply=apply),
        "_checkpoint_without_reentrant": no_checkpoint,
        "_checkpoint_without_reentrant_generator": no_recomputation,
        "_checkpoint_without_reentrant_generator_impl": no_recomputation,
    }
    module = torch.utils.checkpoint
    # One thread at a time: what is put back must be torch's own.
    with _checkpoint_lock:
        before = {name: getattr(module, name) for name in direct if hasattr(module, name)}
        for name in before:
            setattr(module, name, direct[name])
        try:
            yield called
        finally:
            for name, own in before.items():
                setattr(module, name, own)


_RETAIN_GRAD, _REGISTER_HOOK = Tensor.retain_grad, Tensor.register_hook


class _NoHooks(TorchFunctionMode):
    """Lets a forward put hooks on tensors in a pass without gradients, in which torch would refuse them."""

    intercepted = ((Tensor, "retain_grad"), (Tensor, "register_hook"))

    @untraced
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (_RETAIN_GRAD, _REGISTER_HOOK) and not args[0].requires_grad:
            return None if func is _RETAIN_GRAD else RemovableHandle(OrderedDict())
        return func(*args, **(kwargs or {}))


# By their own names: before torch 1.13 an entered mode stands in torch.nn.functional in their place.
_BATCH_NORM, _INSTANCE_NORM = functional.batch_norm, functional.instance_norm


def normalises_one_example(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Tell a call of batch_norm on one example, or of instance_norm, which makes one example of any batch."""
    return bool(args) and (func is _INSTANCE_NORM or (func is _BATCH_NORM and len(args[0]) == 1))


class _ExactNorms(TorchFunctionMode):
    """Gives torch's normalisations contiguous inputs and gradients, where they take a batch for one example.

    Of a batch of one, which InstanceNorm makes of any batch, torch's CPU kernel for their gradient mixes up the values
    where input and gradient are of different memory formats (2.14 and older; docs/reliability.md has the report).
    """

    intercepted = ((functional, "batch_norm"), (functional, "instance_norm"))

    @untraced
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not normalises_one_example(func, args) or args[0].dim() < 3:
            return func(*args, **(kwargs or {}))
        normalised: Tensor = _ContiguousGradient.apply(func(args[0].contiguous(), *args[1:], **(kwargs or {})))
        return normalised


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()  # no view: a layer that works in place may follow

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()
