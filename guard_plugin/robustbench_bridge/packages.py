"""Packages that only the bridge needs, and a stand-in for one that newer installations lack."""

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

from guard_plugin.errors import UnusableInput

__all__ = ["is_missing", "pkg_resources_module", "required"]


def required(name: str) -> ModuleType:
    """Import a module of the extra "bench".

    Warnings that its dependencies give on import (timm's, of names that robustbench uses) are not the user's business.

    Raises:
        UnusableInput: If it, or something that it imports, is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnusableInput(
            f'{name} is needed here, and {error.name} is not installed: pip install "guard-plugin[bench]"'
        ) from error


def is_missing(name: str) -> bool:
    """Tell whether a top-level module can neither be imported nor is there already."""
    return name not in sys.modules and importlib.util.find_spec(name) is None


def pkg_resources_module() -> ModuleType:
    """The module ``pkg_resources``, as far as robustbench uses it."""
    module = ModuleType("pkg_resources")
    vars(module).update(resource_filename=_resource_filename)
    return module


def _resource_filename(module_name: str, resource: str) -> str:
    """The path of a file that lies beside a module."""
    file = sys.modules[module_name].__file__
    if file is None:
        raise UnusableInput(f"{module_name} does not lie in a folder, so {resource} beside it cannot be found")
    return str(Path(file).parent / resource)
