"""Known faults of hosts: named before a run, and mended in memory where the user asks for it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import io
import re
import sys
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

__all__ = ["Fault", "FoundFault", "Repairs", "find_faults"]


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
    only_if: Callable[[], bool] = lambda: True
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
    """Find those of a host's known faults that its source holds and that do harm on this machine."""
    found = []
    for fault in faults:
        if not fault.only_if() or (fault.unless and _spans(host / fault.unless[0], fault.unless[1])):
            continue
        file = host / fault.file
        lines = tuple(dict.fromkeys(line for line, _, _ in _spans(file, fault.pattern)))
        if lines:
            found.append(FoundFault(fault, file.resolve(), lines))
    return found


def _spans(file: Path, pattern: str) -> list[tuple[int, int, int]]:
    """Return line number, start and end of each match in a file's code, comments left out; none without the file."""
    if not file.is_file():
        return []
    lines = _read(file)
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO("".join(lines)).readline))
    except (tokenize.TokenError, SyntaxError):
        return []  # which importing it will tell
    for token in tokens:
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column] + "\n"
    return [(number, *match.span()) for number, line in enumerate(lines, 1) for match in re.finditer(pattern, line)]


def _read(file: Path) -> list[str]:
    with tokenize.open(file) as opened:  # in the encoding that Python would read it in
        return opened.readlines()


class Repairs(importlib.abc.MetaPathFinder):
    """Mends faults while on: Python reads the files that hold them as if they were written right.

    Lines keep their numbers, no file is touched, and no bytecode is written.
    """

    def __init__(self, found: Sequence[FoundFault]) -> None:
        self._found = found
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Read files as they are again; safe to call twice."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def source(self, file: Path) -> bytes | str:
        """Return a file's source, mended where it holds a fault."""
        faults = [one.fault for one in self._found if one.file == file.resolve()]
        if not faults:
            return file.read_bytes()
        lines = _read(file)
        for fault in faults:
            for number, start, end in reversed(_spans(file, fault.pattern)):
                line = lines[number - 1]
                mended = re.sub(fault.pattern, fault.repaired, line[start:end])
                lines[number - 1] = line[:start] + mended + line[end:]
        return "".join(lines)

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
