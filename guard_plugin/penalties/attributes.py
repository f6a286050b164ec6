"""What the modules of a network hold beside parameters and buffers: found, and put back after a pass."""

from __future__ import annotations

import operator
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from guard_plugin.penalties.reads_training import generators_named, is_filled

__all__ = ["attributes_kept", "held"]

# The attributes that every module has: what a network adds is its own.
_TORCHS_OWN = frozenset(vars(nn.Module()))
_CONTAINERS = (list, dict, set, deque)
_PLAIN = {int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device}
_SIMPLE = (nn.Module, type, ModuleType)
_LONGEST = 1000  # of a longer container, what its values hold is not looked at


@contextmanager
def attributes_kept(network: nn.Module) -> Iterator[None]:
    """Put back what modules set on themselves: attributes, what these hold, the state of generators.

    Tensors and arrays among them are copies in the meantime. The attributes of a network are followed through
    containers, functions, and objects of classes that are not torch's or numpy's.
    """
    modules = list(network.modules())
    found = list(held(modules))
    containers = [*map(vars, modules), *(one for one in found if isinstance(one, _CONTAINERS))]
    contents = [(container, _copy(container)) for container in containers]
    buffers = [(module._buffers, len(module._buffers)) for module in modules]
    generators = list(filter(None, map(_generator_kept, [*found, *generators_named(modules)])))
    if any(isinstance(one, (Tensor, numpy.ndarray)) for one in found):
        for container in containers:
            _replace_by_copies(container)
    try:
        yield
    finally:
        for container, before in contents:
            _refill(container, before)
        for now, count in buffers:
            while len(now) > count:
                now.popitem()
        for put_back in generators:
            put_back()


def held(modules: Sequence[nn.Module]) -> Iterator[Any]:
    """Yield what the attributes of modules hold, each once, but for other modules, numbers and texts.

    A weight that torch's ``weight_norm`` or ``spectral_norm`` computes from parameters is left out.
    """
    todo: list[Any] = []
    for module in modules:
        attributes = vars(module)
        for name in attributes.keys() - _TORCHS_OWN:
            value = attributes[name]
            if type(value) not in _PLAIN and not _is_computed_weight(module, name, value):
                todo.append(value)
    seen: dict[int, Any] = {}
    while todo:
        one = todo.pop()
        if type(one) in _PLAIN or isinstance(one, _SIMPLE) or id(one) in seen:
            continue
        seen[id(one)] = one
        yield one
        todo.extend(_inside(one))


def _is_computed_weight(module: nn.Module, name: str, value: Any) -> bool:
    return isinstance(value, Tensor) and not module._parameters.keys().isdisjoint({f"{name}_v", f"{name}_orig"})


def _inside(one: Any) -> list[Any]:
    if isinstance(one, dict):
        return list(one.values()) if len(one) <= _LONGEST else []
    if isinstance(one, (list, tuple, set, deque)):
        return [value for value in one if type(value) not in _PLAIN] if len(one) <= _LONGEST else []
    if isinstance(one, FunctionType):
        return [cell.cell_contents for cell in one.__closure__ or () if is_filled(cell)]
    if isinstance(one, MethodType):
        return [one.__func__]
    own = type(one).__module__.split(".")[0] not in ("torch", "numpy") and hasattr(one, "__dict__")
    return [vars(one)] if own else []


def _copy(container: Any) -> Any:
    kind = next(kind for kind in _CONTAINERS if isinstance(container, kind))
    return kind(container)


def _refill(container: Any, before: Any) -> None:
    if isinstance(container, dict):
        same = container.keys() == before.keys()
        if not (same and all(map(operator.is_, container.values(), before.values()))):
            container.clear()
            for key, value in before.items():  # Counter.update would add, dict.update would pass OrderedDict by
                container[key] = value
    elif isinstance(container, set):
        container.clear()
        container.update(before)
    else:
        container.clear()
        container.extend(before)


def _replace_by_copies(container: Any) -> None:
    if isinstance(container, (dict, list, deque)):
        places = list(container.items() if isinstance(container, dict) else enumerate(container))
        for place, value in places:
            if isinstance(value, Tensor) and not value.requires_grad:
                container[place] = value.clone()
            elif isinstance(value, numpy.ndarray):
                container[place] = value.copy()


def _generator_kept(value: Any) -> Callable[[], Any] | None:
    """Return what puts back the present state of a random generator; None for other values."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, numpy.random.Generator):
        bits, numpys = value.bit_generator, value.bit_generator.state
        return lambda: setattr(bits, "state", numpys)
    if isinstance(value, numpy.random.RandomState):
        legacy = value.get_state(legacy=False)
        return lambda: value.set_state(legacy)
    if isinstance(value, random.Random):
        pythons = value.getstate()
        return lambda: value.setstate(pythons)
    return None
