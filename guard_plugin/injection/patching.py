"""Doing something around what other modules call, for a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

__all__ = ["patch"]


def patch(undo: ExitStack, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Have ``around(plain, *args, **kwargs)`` called in place of a function of a module or class, ``plain``.

    Args:
        undo: Gives the function back when it is closed.
        owner: The module or class.
        name: The function's name there.
        around: Gets the function and the arguments, and returns what the caller gets.
    """
    plain = getattr(owner, name)

    @functools.wraps(plain)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return around(plain, *args, **kwargs)

    setattr(owner, name, patched)
    undo.callback(setattr, owner, name, plain)
