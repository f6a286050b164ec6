"""Known faults of hosts: named before a run, and mended in memory where the user asks for it."""

import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

__all__ = ["Fault", "FoundFault", "Repairs", "find_faults"]


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Fault:
    """A fault in a host's source, as published, that is its own and not ours.

    Args:
        name: A short name: "snapshots-alias".
        file: The file that holds it, relative to the host's folder.
        pattern: A regular expression for the faulty code, within one line.
        repaired: What to put in its place, as :func:`re.sub` takes it; one line.
        harm: What goes wrong, in words.
        only_if: Whether it does harm on this machine.
        unless: Another file and a regular expression: a host whose file matches has mended the fault there.
    """

    name: str
    file: str
    pattern: str
    repaired: str
    harm: str
    only_if: Callable[[], bool] = _always
    unless: tuple[str, str] | None = None


@dataclass(frozen=True)
class FoundFault:
    """A fault that a host's source holds, and in which lines."""

    fault: Fault
    file: Path
    lines: tuple[int, ...]

    def describe(self) -> str:
        """Say what is where."""
        return f"{self.fault.name} ({self.fault.file}:{','.join(map(str, self.lines))}): {self.fault.harm}"

    def to_json(self, *, repaired: bool) -> dict[str, Any]:
        """Return it in the ledger's form."""
        return {
            "name": self.fault.name,
            "at": [f"{self.fault.file}:{line}" for line in self.lines],
            "harm": self.fault.harm,
            "repaired": repaired,
        }


def find_faults(faults: Sequence[Fault], host: Path) -> list[FoundFault]:
    """Find those of a host's known faults that its source holds and that do harm on this machine.

    Args:
        faults: The known ones.
        host: The host's folder.
    """
    found = []
    for fault in faults:
        file = host / fault.file
        if not fault.only_if() or (fault.unless and _lines(host / fault.unless[0], fault.unless[1])):
            continue
        lines = _lines(file, fault.pattern)
        if lines:
            found.append(FoundFault(fault, file.resolve(), lines))
    return found


def _lines(file: Path, pattern: str) -> tuple[int, ...]:
    """Return the numbers of a file's lines that match; none where there is no such file."""
    source = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return tuple(number for number, line in enumerate(source, 1) if re.search(pattern, line))


class Repairs(importlib.abc.MetaPathFinder):
    """Mends faults while on: Python reads the files that hold them as if they were written right.

    Lines keep their numbers, no file is touched, and no bytecode is written.

    Args:
        found: The faults to mend.
    """

    def __init__(self, found: Sequence[FoundFault]) -> None:
        self._found = found
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Read files as they are again; safe to call twice."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def source(self, file: Path) -> bytes:
        """Return a file's source, mended where it holds a fault."""
        source = file.read_bytes()
        for one in self._found:
            if one.file == file.resolve():
                source = re.sub(one.fault.pattern.encode(), one.fault.repaired.encode(), source)
        return source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module that holds a fault (the import system calls this); None for every other one."""
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
