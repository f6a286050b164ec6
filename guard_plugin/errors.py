"""The errors that guard-plugin raises, each with the exit code that the command line gives it."""

import difflib
from collections.abc import Sequence

__all__ = [
    "GuardError",
    "NothingGuarded",
    "PluginError",
    "SeamError",
    "UnsafeFile",
    "UnsupportedLoss",
    "UnusableInput",
    "few",
    "unknown",
]


class GuardError(Exception):
    """Base of all errors: the message says what was expected, what was found, and the fix."""

    exit_code = 2


class UnusableInput(GuardError):
    """An argument, option, file or tensor that cannot be worked with."""


class PluginError(GuardError):
    """A plugin that cannot be loaded, or two that contradict each other."""


class SeamError(GuardError):
    """A seam of the host is missing or has another shape than the adapter expects."""


class UnsupportedLoss(GuardError):
    """A loss call on real data whose penalty cannot be computed."""


class UnsafeFile(GuardError):
    """A file that could only be read by executing what it holds, which is refused."""


class NothingGuarded(GuardError):
    """The host's script ended well, but not as a guarded run: wrong number of calls, penalties not finite or all 0."""

    exit_code = 3


_NAMED = 3  # of a list


def few(names: Sequence[str]) -> str:
    """Name the first of several for a message, each cut to 80 characters: "a, b, c and more"."""
    return ", ".join(f"{name:.80}" for name in names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, with the known ones and the nearest of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}: expected one of {', '.join(sorted(known)) or '(none is installed)'}{hint}"
