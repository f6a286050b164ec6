"""Which Python programs a script starts: nothing of what they do is seen in its process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from guard_plugin.injection.patching import patch
from guard_plugin.injection.processes.python_programs import python_program

__all__ = ["watch_started_programs"]


def watch_started_programs(undo: ExitStack, started: Callable[[str], None]) -> None:
    """Call ``started`` with the command of each Python program before it is started, until ``undo`` is closed."""

    def popen(plain: Callable[..., Any], process: Any, args: Any, *others: Any, **kwargs: Any) -> None:
        _tell(started, args, kwargs.get("executable"))
        plain(process, args, *others, **kwargs)

    def system(plain: Callable[..., Any], command: Any) -> Any:
        _tell(started, command)
        return plain(command)

    def run(plain: Callable[..., Any], path: Any, argv: Any, *others: Any, **kwargs: Any) -> Any:
        _tell(started, argv, path)
        return plain(path, argv, *others, **kwargs)

    def spawn(plain: Callable[..., Any], mode: int, file: Any, args: Any, *others: Any, **kwargs: Any) -> Any:
        _tell(started, args, file)
        return plain(mode, file, args, *others, **kwargs)

    patch(undo, subprocess.Popen, "__init__", popen)
    # The other functions of os that run a program, execvp and spawnl among them, call these.
    starters: dict[str, Callable[..., Any]] = {
        "system": system,
        **dict.fromkeys(("execv", "execve", "posix_spawn", "posix_spawnp"), run),
        **dict.fromkeys(("spawnv", "spawnve", "spawnvp", "spawnvpe"), spawn),
    }
    for name in filter(os.__dict__.__contains__, starters):  # not all are there on every system
        patch(undo, os, name, starters[name])


def _tell(started: Callable[[str], None], command: Any, file: Any = None) -> None:
    """Tell of a Python program: the command's, or ``file``, which is run whatever the command's first word is."""
    text = python_program(command)
    if not text and file is not None and isinstance(command, (list, tuple)):
        text = python_program([file, *command[1:]])
    if text:
        started(text)
