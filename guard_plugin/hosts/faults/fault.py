"""Known faults of hosts, found in their source."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["AS_IT_IS", "Fault", "FoundFault", "always", "find_faults"]

AS_IT_IS = r"\g<0>"
"""As what to put in the place of faulty code: the code itself, where a fault is mended in memory alone."""


def always() -> bool:
    """Say of a fault that it does harm on every machine."""
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
        also: Further patterns of the same fault, each with what to put in its place.
        meanwhile: Makes a context in which the host is run, for what cannot be mended in its source: a function of a
            module, by whose name processes that begin anew find it.
        stops: Whether a script that meets the fault stops: what a script wrote that went on is then not harmed.
    """

    name: str
    file: str
    pattern: str
    repaired: str
    harm: str
    only_if: Callable[[], bool] = always
    unless: tuple[str, str] | None = None
    also: tuple[tuple[str, str], ...] = ()
    meanwhile: Callable[[], AbstractContextManager[Any]] | None = None
    stops: bool = False

    def mends(self, lines: Sequence[str]) -> Iterator[tuple[int, int, int, str]]:
        """Yield each faulty place in a file's code: line (from 0), start, end, and what to put there."""
        for pattern, repaired in ((self.pattern, self.repaired), *self.also):
            for number, line in enumerate(lines):
                for match in re.finditer(pattern, line):
                    yield number, *match.span(), match.expand(repaired)


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
            "stops": self.fault.stops,
            "repaired": repaired,
        }


def find_faults(faults: Sequence[Fault], host: Path) -> list[FoundFault]:
    """Find those of a host's known faults that its source holds and that do harm on this machine."""
    found = []
    for fault in faults:
        lines = {number + 1 for number, *_ in fault.mends(code_of(host / fault.file))}
        if lines and fault.only_if() and not (fault.unless and _holds(host / fault.unless[0], fault.unless[1])):
            found.append(FoundFault(fault, (host / fault.file).resolve(), tuple(sorted(lines))))
    return found


def _holds(file: Path, pattern: str) -> bool:
    return any(re.search(pattern, line) for line in code_of(file))


def code_of(file: Path) -> list[str]:
    """Return a file's lines without their comments; none where there is no such file, or it is not Python."""
    if not file.is_file():
        return []
    lines = lines_of(file)
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO("".join(lines)).readline))
    except (tokenize.TokenError, SyntaxError):
        return []  # which importing it will tell
    for token in tokens:
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column] + "\n"
    return lines


def lines_of(file: Path) -> list[str]:
    """Return a file's lines, in the encoding that Python would read it in."""
    with tokenize.open(file) as opened:
        return opened.readlines()
