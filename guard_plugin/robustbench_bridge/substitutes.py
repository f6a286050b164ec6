"""Putting something in the place of something else, for a while."""

import importlib
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from guard_plugin.errors import UnusableInput

__all__ = ["provided_modules", "replaced_attribute", "replaced_item"]


@contextmanager
def replaced_attribute(module: str, name: str, value: Any) -> Iterator[None]:
    """Let a name in a module stand for another object.

    Raises:
        UnusableInput: If the module has no such name.
    """
    loaded = importlib.import_module(module)
    if not hasattr(loaded, name):
        raise _other_version(f"{module}.{name}")
    before = getattr(loaded, name)
    setattr(loaded, name, value)
    try:
        yield
    finally:
        setattr(loaded, name, before)


@contextmanager
def replaced_item(mapping: MutableMapping[Any, Any], key: Any, value: Any) -> Iterator[None]:
    """Let a key of a mapping stand for another object.

    Raises:
        UnusableInput: If the mapping has no such key.
    """
    if key not in mapping:
        raise _other_version(f"entry {key}")
    before = mapping[key]
    mapping[key] = value
    try:
        yield
    finally:
        mapping[key] = before


@contextmanager
def provided_modules(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Let ``import`` find modules that are not installed."""
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


def _other_version(what: str) -> UnusableInput:
    return UnusableInput(
        f"expected {what}, as in robustbench 1.1.1 with pyautoattack 0.2.0, which these repairs are written for; "
        f"the installed one has none: pip install robustbench==1.1.1 pyautoattack==0.2.0"
    )
