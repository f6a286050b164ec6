"""Attributes by which a network's forward may choose what it computes, as they were when it was called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from guard_plugin.penalties.reads_training import may_name

__all__ = ["PlainAttributes", "changed_attribute", "own_modules", "plain_attributes"]

PlainAttributes = Mapping["tuple[int, str]", Any]
"""By module's id and attribute's name: numbers, texts and None as they are, modules by their ids."""

_PLAIN = (int, float, str, type(None))  # a bool is an int
_TORCHS_OWN = frozenset(vars(nn.Module()))


def own_modules(network: nn.Module) -> list[nn.Module]:
    """Return a network's modules that are not of torch's classes."""
    return [module for module in network.modules() if not type(module).__module__.startswith("torch.")]


def plain_attributes(modules: Sequence[nn.Module]) -> PlainAttributes:
    """Return the plain attributes of modules, and the modules that they hold."""
    found: dict[tuple[int, str], Any] = {}
    for module in modules:
        key, attributes = id(module), vars(module)
        for name in attributes.keys() - _TORCHS_OWN:
            if isinstance(attributes[name], _PLAIN):
                found[key, name] = attributes[name]
        for name, part in module._modules.items():
            found[key, name] = id(part)
    return found


def changed_attribute(network: nn.Module, before: PlainAttributes) -> str:
    """Name an attribute that is not what it was and that the code of some module may read; empty where there is none.

    Attributes that are new, or gone, are none of these.
    """
    now = plain_attributes(own_modules(network))
    changed = [key for key, value in before.items() if key in now and now[key] != value]
    kinds = dict.fromkeys(type(module) for module in network.modules()) if changed else ()
    return next((name for _, name in changed if any(may_name(kind, name) for kind in kinds)), "")
