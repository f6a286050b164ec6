"""Attacks that other packages bring, imported when they are run."""

from importlib import import_module
from types import ModuleType

from guard_plugin.errors import UnusableInput

__all__ = ["required"]


def required(module: str, *, family: str, install: str) -> ModuleType:
    """Import what an attack is run by.

    Args:
        module: Dotted name.
        family: Of the attack, for the message.
        install: The command that installs it.

    Raises:
        UnusableInput: If it, or something that it needs, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UnusableInput(
            f"attack {family} is run by {module.split('.')[0]}, and {error.name} is not installed: {install}"
        ) from error
