"""Whether a module may behave differently in training, told from the code of its class, and not from trials.

A trial sees what a network does now; a network may do something else from some call on.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules import batchnorm, dropout, instancenorm

__all__ = ["why_unlike_in_training"]

# Of torch's own layers those whose code reads `training`, and when it changes nothing. Their parts are looked at, too.
_HARMLESS: "dict[type[nn.Module], Callable[[Any], bool]]" = {
    dropout._DropoutNd: lambda layer: layer.p == 0,
    batchnorm._BatchNorm: lambda layer: False,
    instancenorm._InstanceNorm: lambda layer: not layer.track_running_stats,
    nn.RNNBase: lambda layer: layer.dropout == 0,
    nn.MultiheadAttention: lambda layer: layer.dropout == 0,
    nn.TransformerEncoderLayer: lambda layer: True,
    nn.TransformerEncoder: lambda layer: True,
}

_CLASSES: "WeakKeyDictionary[type, str]" = WeakKeyDictionary()


def why_unlike_in_training(network: nn.Module) -> str:
    """Say which module that is in training mode may behave differently there; return an empty text where none does."""
    for module in network.modules():
        reason = _why_unlike(module) if module.training else ""
        if reason:
            return reason
    return ""


def _why_unlike(module: nn.Module) -> str:
    kind = type(module)
    for layer, is_harmless in _HARMLESS.items():
        if isinstance(module, layer) and not is_harmless(module):
            return f"{kind.__name__} behaves differently in training"
    if isinstance(module, torch.jit.ScriptModule):
        return f"{kind.__name__} was scripted: its code cannot be read"
    if kind not in _CLASSES:
        _CLASSES[kind] = _why_code(_methods(kind), kind.__name__)
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if not all(_is_torchs(type(hook).__module__) and not inspect.isroutine(hook) for hook in hooks):
        return f"a forward hook of {kind.__name__} may look at the pass"
    own = [value for value in vars(module).values() if callable(value) and not isinstance(value, (type, nn.Module))]
    return _CLASSES[kind] or _why_code(own, kind.__name__)


def _methods(kind: type) -> list[Any]:
    """Return what a class outside torch defines, with its base classes outside torch."""
    own = [base for base in kind.__mro__ if not _is_torchs(base.__module__) and base is not object]
    return [value for base in own for value in vars(base).values()]


def _why_code(values: list[Any], name: str) -> str:
    """Say why functions may behave differently in training, looking also at those that they call by a global name."""
    seen: set[int] = set()
    while values:
        function = _unwrapped(values.pop())
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        for code in _codes(function.__code__):
            if "training" in code.co_names or "training" in _texts(code.co_consts):
                return f"the code of {name} reads `training`"
            used = [function.__globals__[name] for name in code.co_names if name in function.__globals__]
            modules = [one for one in used if isinstance(one, types.ModuleType) and not _is_torchs(one.__name__)]
            values += used + [getattr(module, name, None) for module in modules for name in code.co_names]
        values += [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return ""


def _unwrapped(value: Any) -> "types.FunctionType | None":
    """Return the Python function behind a value, if it is one outside torch and the standard library's own."""
    while isinstance(value, (staticmethod, classmethod, functools.partial, types.MethodType, property)):
        value = next(getattr(value, name) for name in ("fget", "func", "__func__") if hasattr(value, name))
    value = inspect.unwrap(value) if callable(value) else value
    if not isinstance(value, types.FunctionType) or _is_torchs(value.__module__):
        return None
    return value


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _texts(constants: "tuple[Any, ...]") -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple):
            yield from _texts(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _is_torchs(module: "str | None") -> bool:
    return (module or "").partition(".")[0] in ("torch", "numpy", "builtins", "functools", "math", "typing")
