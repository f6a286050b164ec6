"""How a process ends that guarded itself: its exit code is noted, and may have to become another one."""

import atexit
import gc
import io
import os
import sys
from typing import NoReturn

__all__ = ["ExitWatch", "end_process"]


class ExitWatch:
    """Notes, until :meth:`remove`, what ``sys.exit`` was called with: Python does not tell it to functions at exit."""

    def __init__(self) -> None:
        self.called = False
        self.code: object = None
        self._original = sys.exit
        sys.exit = self._noted

    def remove(self) -> None:
        """Restore ``sys.exit``."""
        sys.exit = self._original

    def _noted(self, code: object = None, /) -> NoReturn:
        self.called, self.code = True, code
        raise SystemExit(code)


def end_process(code: int) -> NoReturn:
    """End the process with an exit code while the interpreter is ending; nothing that was written is lost."""
    atexit._run_exitfuncs()
    for thing in gc.get_objects():
        if isinstance(thing, (io.TextIOWrapper, io.BufferedWriter)) and not thing.closed and thing.writable():
            thing.flush()
    os._exit(code)
