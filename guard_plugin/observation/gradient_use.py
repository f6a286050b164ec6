"""Whether anybody reads the gradients that a loss leaves at a network's parameters."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.injection.patching import patch
from guard_plugin.observation.sites import Group
from guard_plugin.versions import TorchFunctionMode, untraced

__all__ = ["GradientUse"]

_READ_GRAD: Any = torch.Tensor.grad.__get__  # type: ignore[union-attr]


@dataclass(eq=False)
class _Left:
    """What one loss left at the gradients of ``at`` parameters."""

    group: Group
    at: int


class GradientUse(TorchFunctionMode):
    """Notes, from creation until :meth:`remove`, of which losses gradients are used (from torch 2.0 on).

    ``loss.backward()`` leaves gradients at parameters, where an optimizer's step, or the host, reads them. Where
    ``zero_grad()`` comes first, the loss has trained nothing: it was one term of a sum whose other terms were wanted.
    What ``torch.autograd.grad`` returns is taken to be used.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[int, tuple[weakref.ref[Tensor], list[_Left]]] = {}
        self._unread: dict[_Left, None] = {}
        self._returned = self._zeroing = self._moving = 0
        zero: Any = [(owner, "zero_grad", "_zeroing") for owner in (torch.optim.Optimizer, nn.Module)]
        # net.to(device), too, looks at gradients, and does nothing with them.
        watched = [*zero, (nn.Module, "_apply", "_moving")]
        self._undo = ExitStack()
        for owner, name, count in watched:
            patch(self._undo, owner, name, partial(self._count, count))
        self._undo.enter_context(self)

    def remove(self) -> None:
        """Watch no longer, and take it for used where nobody has done away with any gradient of a group."""
        self._undo.close()
        for left in self._unread:
            if not left.group.discarded:
                left.group.trained += 1

    def watch(self, loss: Tensor, parameters: Iterable[Tensor], group: Group) -> None:
        """Watch the gradients that will flow from a loss to parameters, for the group of the loss."""
        if loss.grad_fn is not None:
            trained = [weakref.ref(one) for one in parameters if one.requires_grad]
            loss.grad_fn.register_hook(lambda *_: self._flows(trained, group))

    def _flows(self, parameters: list[weakref.ref[Tensor]], group: Group) -> None:
        alive = [one for one in (reference() for reference in parameters) if one is not None]
        if self._returned or not alive:
            group.trained += 1
            return
        left = _Left(group, len(alive))
        self._unread[left] = None
        for parameter in alive:
            self._left[id(parameter)] = (weakref.ref(parameter), [*self._left_at(parameter), left])

    @untraced
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.autograd.grad:
            func = partial(self._count, "_returned", func)
        if func == _READ_GRAD and not self._moving:
            self._is_read(args[0])
        return func(*args, **(kwargs or {}))

    def _is_read(self, parameter: Tensor) -> None:
        all_left = self._left_at(parameter)
        self._left.pop(id(parameter), None)
        for left in all_left:
            left.at -= 1
            if left not in self._unread:
                continue
            if not self._zeroing:
                left.group.trained += 1
                del self._unread[left]
            elif not left.at:
                left.group.discarded += 1
                del self._unread[left]

    def _left_at(self, parameter: Tensor) -> list[_Left]:
        known, all_left = self._left.get(id(parameter), (None, []))
        return all_left if known is not None and known() is parameter else []

    def _count(self, counter: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function; a counter of this object tells meanwhile that it runs."""
        setattr(self, counter, getattr(self, counter) + 1)
        try:
            return function(*args, **kwargs)
        finally:
            setattr(self, counter, getattr(self, counter) - 1)
