"""Which tensors were computed from learned ones, and which of those are real images that were changed a little."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from guard_plugin.versions import TorchFunctionMode, untraced

__all__ = ["Lineage", "tensors_in"]


class _Descent(NamedTuple):
    """How a tensor descends from learned ones: whether from one that an optimizer has, from which others, beside what.

    ``others`` may get an optimizer later; ``data`` is a tensor on which nothing is learned, of the same shape.
    """

    tensor: weakref.ref[Tensor]
    optimized: bool
    others: tuple[weakref.ref[Tensor], ...]
    data: Tensor | None


class Lineage(TorchFunctionMode):
    """Knows the tensors of floating point that were computed from one that requires grad, whether they do or not.

    What was chosen by such a tensor (its order, a mask) was not computed from it.

    Args:
        is_optimized: Tells whether an optimizer has a tensor.
    """

    def __init__(self, is_optimized: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self._is_optimized = is_optimized
        self._descents: dict[int, _Descent] = {}

    @untraced
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        changed = args[:1] if _is_inplace(getattr(func, "__name__", "")) else ()
        made = [one for one in tensors_in((result, *changed)) if self._descent(one) is None]
        # A gradient is computed from the tensor that it belongs to; a loss only tells which way that is to change.
        given = list(tensors_in((*(args[1:] if func is torch.autograd.grad else args), *(kwargs or {}).values())))
        learned = [one for one in given if self.is_learned(one)] if made else []
        if learned:
            optimized = any(map(self._is_optimized_further_up, learned))
            for one in made:
                if not (one.requires_grad and optimized):
                    self._remember(one, optimized, given)
        return result

    def is_learned(self, tensor: Tensor) -> bool:
        """Tell whether a tensor requires grad, or was computed from one that does."""
        return tensor.requires_grad or self._descent(tensor) is not None

    def changed_by_gradients(self, tensor: Tensor) -> bool:
        """Tell whether a tensor was computed from one that requires grad, but not from one that an optimizer has."""
        return self._descent(tensor) is not None and not self._is_optimized_further_up(tensor)

    def perturbed(self, tensor: Tensor) -> Tensor | None:
        """Return the data that a tensor is a small change of, as adversarial examples are; None where it is not.

        That is a tensor on which nothing is learned that took part in the tensor's computation, and each of whose rows
        correlates with the tensor's more than another row does. Clipping, as attacks do, leaves that as it is. Of one
        row alone it cannot be told.
        """
        descent = self._descent(tensor)
        data = None if descent is None else descent.data
        if data is None or len(data) < 2 or self._is_optimized_further_up(tensor):
            return None
        alike, to_another = (_correlation(tensor.detach(), one) for one in (data, data.roll(1, 0)))
        return data if bool((alike >= to_another).all()) else None

    def _is_optimized_further_up(self, tensor: Tensor) -> bool:
        """Tell whether an optimizer has a learned tensor, or one that it was computed from."""
        if isinstance(tensor, nn.Parameter) or self._is_optimized(tensor):
            return True
        descent = self._descent(tensor)
        if descent is None:
            return not tensor.is_leaf  # of a network's graph, as a rule
        return descent.optimized or any(map(self._is_optimized, _alive(descent.others)))

    def _descent(self, tensor: Tensor) -> _Descent | None:
        known = self._descents.get(id(tensor))
        return known if known is not None and known.tensor() is tensor else None

    def _remember(self, tensor: Tensor, optimized: bool, given: list[Tensor]) -> None:
        data: Tensor | None = None
        others: tuple[weakref.ref[Tensor], ...] = ()
        if not optimized and tensor.dim() > 1:
            given = [one for one in given if one is not tensor]
            descents = [descent for descent in map(self._descent, given) if descent is not None]
            beside = [one for one in given if not self.is_learned(one)]
            beside += [descent.data for descent in descents if descent.data is not None]
            data = next((one for one in beside if one.shape == tensor.shape), None)
            leaves = [one for one in given if one.is_leaf and one.requires_grad]
            leaves += [one for descent in descents for one in _alive(descent.others)]
            others = tuple(map(weakref.ref, leaves))
        key, known = id(tensor), self._descents
        known[key] = _Descent(weakref.ref(tensor, lambda gone: known.pop(key, None)), optimized, others, data)


def _alive(references: Iterable[weakref.ref[Tensor]]) -> Iterator[Tensor]:
    return (tensor for tensor in (reference() for reference in references) if tensor is not None)


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return the correlation of each row with the other tensor's."""
    a, b = (tensor.flatten(1).float() for tensor in (one, other))
    return cosine_similarity(a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True), dim=1)


def _is_inplace(name: str) -> bool:
    return name in ("__setitem__", "__iadd__", "__isub__", "__imul__") or (name[-1:] == "_" and name[-2:] != "__")


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors of floating point in tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(value)
