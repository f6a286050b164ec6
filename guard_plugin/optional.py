"""Packages that only some commands need: imported when they are used, and named when they are not there."""

import warnings
from importlib import import_module
from typing import Any

from guard_plugin.errors import UnusableInput

__all__ = ["require"]


def require(module: str, *, needed_by: str, install: str = 'pip install "guard-plugin[bench]"') -> Any:
    """Import a module of an optional package.

    Warnings that its own dependencies give on import are not the user's business.

    Args:
        module: Dotted name: "torchvision.models".
        needed_by: What needs it, as the message begins: "--teacher".
        install: The command that installs it.

    Raises:
        UnusableInput: If it, or something that it imports, is not installed or cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise UnusableInput(f"{needed_by} needs {module}, and {missing} is not installed: {install}") from error
    except ImportError as error:
        raise UnusableInput(f"{needed_by} needs {module}, which cannot be imported ({error}): {install}") from error
