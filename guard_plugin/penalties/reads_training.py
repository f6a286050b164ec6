"""Whether a module's code reads ``training``: where no module's does, a pass in training is one of evaluation.

The code is read, not run: that of a module's class and hooks, and of the Python functions that it names. torch's own
functions get the flag as an argument.
"""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import _lru_cache_wrapper, cached_property, partial, partialmethod
from pathlib import Path
from random import Random
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import numpy
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from guard_plugin.penalties.undisturbed import normalises_by_batch

__all__ = ["GENERATORS", "generators_named", "is_filled", "is_torchs", "may_name", "why_otherwise_in_training"]

GENERATORS = (torch.Generator, numpy.random.Generator, numpy.random.RandomState, Random)

# Classes of torch whose code reads ``training``, and when their outputs are those of evaluation nevertheless.
_SAME: dict[type, Callable[[Any], bool]] = {
    _DropoutNd: lambda module: module.p == 0,
    _InstanceNorm: lambda module: not module.track_running_stats,
    nn.RNNBase: lambda module: module.dropout == 0,
    nn.MultiheadAttention: lambda module: module.dropout == 0,
    nn.TransformerEncoder: lambda module: True,  # these two choose a faster kernel by it; their dropout is in modules
    nn.TransformerEncoderLayer: lambda module: True,
}

# Nothing of a module's in a pass: ``undisturbed`` sets the flags itself.
_NOT_IN_A_PASS = {"__init__", "train", "eval"}
_MODULES_OWN = frozenset(vars(nn.Module()))
_MOST_FUNCTIONS = 2000

_LIBRARIES = {"torch", "numpy", "builtins"}
_TORCH, _NUMPY, _STANDARD = (f"{Path(str(library.__file__)).parent}{os.sep}" for library in (torch, numpy, os))

# Of each class its forward, which a host may replace, and when a module is the same in training.
_NAMED: WeakKeyDictionary[type, tuple[Any, list[tuple[dict[str, Any], str]]]] = WeakKeyDictionary()
_KNOWN: WeakKeyDictionary[type, tuple[Any, list[Callable[[Any], bool]]]] = WeakKeyDictionary()


def why_otherwise_in_training(network: nn.Module, *, batch_statistics: bool = False) -> str:
    """Say which module of a network may act otherwise in training than in evaluation; empty where none does.

    Evaluation in ``batch_statistics`` is the same as training to BatchNorm.
    """
    for module in network.modules():
        if module.training and not (batch_statistics and normalises_by_batch(module)) and _may_differ(module):
            return f"{type(module).__name__} may act otherwise in training"
    return ""


def may_name(kind: type, name: str) -> bool:
    """Tell whether code of a module's class, or a function that it leads to, names an attribute."""
    return any(names is None or name in names for names, _ in _read(_functions_of(kind), from_torch=True))


def is_torchs(hook: Any) -> bool:
    """Tell whether a hook is torch's own, such as that of ``weight_norm``."""
    code = getattr(hook, "__code__", None) or getattr(type(hook).__call__, "__code__", None)
    return code is not None and code.co_filename.startswith(_TORCH)


def _may_differ(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return True
    kind = type(module)
    if kind not in _KNOWN or _KNOWN[kind][0] is not _static_forward(kind):
        conditions = [same for one, same in _SAME.items() if one in kind.__mro__]
        _KNOWN[kind] = (_static_forward(kind), [lambda module: False] if _class_reads(kind) else conditions)
    if not all(same(module) for same in _KNOWN[kind][1]):
        return True
    attributes = vars(module)
    if "forward" in attributes and not _is_code(attributes["forward"]):
        return True
    own = [code for name in attributes.keys() - _MODULES_OWN for code in _code_of(attributes[name])]
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return (bool(own) and _any_reads(own)) or any(_hook_reads(hook) for hook in hooks)


def _static_forward(kind: type) -> Any:
    return inspect.getattr_static(kind, "forward", None)  # a scripted module's needs an instance


def _class_reads(kind: type) -> bool:
    forward = next(vars(one)["forward"] for one in kind.__mro__ if "forward" in vars(one))
    return not _is_code(forward) or _any_reads(_functions_of(kind), from_torch=True)


def _code_of(attribute: Any) -> tuple[Any, ...]:
    """Return what a module's attribute, a part of one, or a global variable may hold of functions, to be read."""
    if isinstance(attribute, _CONTAINERS):
        return () if isinstance(attribute, tuple) and _NUMBERS.issuperset(map(type, attribute)) else (attribute,)
    if _is_code(attribute):
        return (attribute,)
    return (type(attribute), vars(attribute)) if _is_ones_own(attribute) else ()


def _is_ones_own(value: Any) -> bool:
    """Tell an object, no module, class or module of Python's, whose class may hold code that is not a library's."""
    other = (nn.Module, type, ModuleType, torch.Tensor)
    package = str(type(value).__module__).split(".")[0]
    return not isinstance(value, other) and hasattr(value, "__dict__") and package not in _LIBRARIES


def _hook_reads(hook: Any) -> bool:
    if not _is_code(hook):
        return _any_reads(_functions_of(type(hook)), from_torch=True)
    return _any_reads([hook])


def _functions_of(kind: type) -> Iterator[Any]:
    for one in kind.__mro__:
        known = one.__module__.startswith("torch.") and not _SAME.keys().isdisjoint(one.__mro__)
        if not known and one not in (nn.Module, object):
            yield from (value for name, value in vars(one).items() if name not in _NOT_IN_A_PASS and _is_code(value))


_WRAPPERS = (staticmethod, classmethod, MethodType)
_PARTIALS = (partial, partialmethod, cached_property)
_CONTAINERS = (list, tuple, set, frozenset, deque, dict)
_NUMBERS = {int, float, bool, str, type(None)}  # of which most of modules' tuples are, such as sizes of kernels
_READABLE = (FunctionType, property, _lru_cache_wrapper, *_WRAPPERS, *_PARTIALS)


def _is_code(value: Any) -> bool:
    return isinstance(value, _READABLE)


def _any_reads(roots: Iterable[Any], *, from_torch: bool = False) -> bool:
    """Tell whether a function, or one that it leads to, reads ``training``, or whether these are too many to read.

    torch's own code is read among the roots only, and only if ``from_torch``.
    """
    return any(names is None or "training" in names for names, _ in _read(roots, from_torch=from_torch))


def _read(roots: Iterable[Any], *, from_torch: bool) -> Iterator[tuple[set[str] | None, dict[str, Any]]]:
    """Yield the names that each function uses, and its global variables; None for names if there are too many."""
    todo = list(roots)
    first = {id(one) for one in todo} if from_torch else set()
    seen: dict[int, Any] = {}
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        if len(seen) == _MOST_FUNCTIONS:
            yield None, {}
            return
        seen[id(one)] = one
        if isinstance(one, FunctionType) and (id(one) in first or not _is_librarys(one.__code__)):
            names = set(_names(one.__code__))
            yield names, one.__globals__
            if not one.__code__.co_filename.startswith(_TORCH):
                todo.extend(_named(names, one.__globals__))
        for part in _parts(one):
            todo.extend((part,) if isinstance(part, type) else _code_of(part))


def generators_named(modules: Iterable[nn.Module]) -> list[Any]:
    """Return the random generators that the code of modules names as global variables."""
    places = [place for kind in set(map(type, modules)) for place in _named_by(kind)]
    found = [variables.get(name) for variables, name in places]
    return [one for one in found if isinstance(one, GENERATORS)]


def _named_by(kind: Any) -> list[tuple[dict[str, Any], str]]:
    """Return where a class's code names generators: the variables, and the name among them."""
    if kind not in _NAMED or _NAMED[kind][0] is not _static_forward(kind):
        read = [] if kind.__module__.startswith("torch.") else _read(_functions_of(kind), from_torch=True)
        places = [place for names, variables in read if names is not None for place in _generators(names, variables)]
        _NAMED[kind] = (_static_forward(kind), places)
    return _NAMED[kind][1]


def _generators(names: set[str], variables: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for name in names & variables.keys():
        value = variables[name]
        inner = vars(value) if isinstance(value, (ModuleType, type)) or _is_ones_own(value) else {}
        if isinstance(value, GENERATORS):
            yield variables, name
        yield from ((dict(inner), one) for one in names & inner.keys() if isinstance(inner[one], GENERATORS))


def _is_librarys(code: CodeType) -> bool:
    file = code.co_filename
    return file.startswith((_TORCH, _NUMPY)) or (
        file.startswith(_STANDARD) and f"{os.sep}site-packages{os.sep}" not in file
    )


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code and the code nested in it uses, and the strings that may be names."""
    yield from code.co_names
    constants = list(code.co_consts)
    while constants:
        constant = constants.pop()
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            constants.extend(constant)
        elif isinstance(constant, CodeType):
            yield from _names(constant)


def _named(names: set[str], variables: dict[str, Any]) -> Iterator[Any]:
    """Yield the functions, classes and tables of functions that names may stand for."""
    for name in names & variables.keys():
        value = variables[name]
        if isinstance(value, ModuleType):
            yield from (vars(value)[one] for one in names & vars(value).keys() if _is_code(vars(value)[one]))
        elif not isinstance(value, type):
            yield from _code_of(value)
        elif not issubclass(value, nn.Module):
            yield value  # a module that is named is among the network's, or is not put into evaluation


def _parts(one: Any) -> Iterator[Any]:
    """Yield what a function, or what stands for functions, was made of."""
    if isinstance(one, FunctionType):
        yield from (cell.cell_contents for cell in one.__closure__ or () if is_filled(cell))
        yield from vars(one).values()  # such as __wrapped__
    elif isinstance(one, _WRAPPERS):
        yield one.__func__
    elif isinstance(one, property):
        yield from (one.fget, one.fset)
    elif isinstance(one, _PARTIALS):
        yield from (one.func, *getattr(one, "args", ()), *getattr(one, "keywords", {}).values())
    elif isinstance(one, _lru_cache_wrapper):
        yield one.__wrapped__
    elif isinstance(one, type) and not issubclass(one, nn.Module):
        yield from (value for kind in one.__mro__[:-1] for value in vars(kind).values())
    elif isinstance(one, _CONTAINERS):
        yield from one.values() if isinstance(one, dict) else one


def is_filled(cell: Any) -> bool:
    """Tell whether a function's cell has a value yet."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
