"""Faults of a host mended in memory: Python reads its files as if they were written right."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import CodeType, ModuleType

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts.faults.begun_anew import mend_processes
from guard_plugin.hosts.faults.fault import FoundFault, code_of, lines_of

__all__ = ["Repairs"]


class Repairs(importlib.abc.MetaPathFinder):
    """Mends faults while on, also in processes that this one starts.

    Lines keep their numbers, no file is touched, and no bytecode is written. A process that begins anew ("spawn",
    "forkserver") and executes the script, too, imports it as the module ``main`` = (name, file).
    """

    def __init__(self, found: Sequence[FoundFault], main: tuple[str, Path] | None = None) -> None:
        self._found = found
        self._main = main
        with ExitStack() as undo:
            if found:
                sys.meta_path.insert(0, self)
                undo.callback(self._find_no_more)
                undo.enter_context(mend_processes(found))
            for meanwhile in dict.fromkeys(one.fault.meanwhile for one in found):
                if meanwhile is not None:
                    undo.enter_context(meanwhile())
            self._undo = undo.pop_all()

    def remove(self) -> None:
        """Read files as they are again; safe to call twice."""
        self._undo.close()

    def _find_no_more(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def source(self, file: Path) -> bytes | str:
        """Return a file's source, mended where it holds a fault."""
        faults = [one.fault for one in self._found if one.file == file.resolve()]
        if not faults:
            return file.read_bytes()
        lines, code = lines_of(file), code_of(file)
        mends = {mend for fault in faults for mend in fault.mends(code)}
        behind = (len(lines), 0)
        for number, start, end, mended in sorted(mends, reverse=True):
            if code[number][start:end] == mended:
                continue
            if (number, end) > behind:
                names = ", ".join(fault.name for fault in faults)
                raise UnusableInput(f"{file}:{number + 1}: two of the faults {names} are in the same place: mend one")
            behind = (number, start)
            lines[number] = lines[number][:start] + mended + lines[number][end:]
        return "".join(lines)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module that holds a fault (the import system calls this); None for every other one."""
        if self._main is not None and fullname == self._main[0]:
            file = str(self._main[1])
            return importlib.util.spec_from_file_location(fullname, file, loader=_RepairedLoader(fullname, file, self))
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or Path(spec.origin).resolve() not in [one.file for one in self._found]:
            return None
        spec.loader = _RepairedLoader(fullname, spec.origin, self)
        spec.cached = None
        return spec


class _RepairedLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, repairs: Repairs) -> None:
        super().__init__(name, path)
        self._repairs = repairs

    def get_code(self, fullname: str) -> CodeType:
        # Not the inherited one: bytecode beside the file is that of the fault.
        return compile(self._repairs.source(Path(self.path)), self.path, "exec", dont_inherit=True)
