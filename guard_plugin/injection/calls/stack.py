"""Which seams a loss call is made under, read off the call stack."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from guard_plugin.hosts.seams import MODULE_LEVEL, Definition, Seam
from guard_plugin.versions import strict_zip

__all__ = ["OUTSIDE_SEAMS", "Place", "StackReader", "locals_of"]

OUTSIDE_SEAMS = "outside every seam"


@dataclass(frozen=True)
class Place:
    """Where a loss call was made, and the seams on the stack with their frames, innermost first.

    ``site`` is the host's innermost line, "main.py:191", relative to its folder, and ``function`` the name of its
    function; both are None outside the host's files.
    """

    site: str | None
    function: str | None
    seams: tuple[Seam, ...]
    frames: tuple[FrameType, ...]

    @property
    def why_unguarded(self) -> str:
        """Why no loss call is guarded here; empty where a seam opens guarding and none suspends it."""
        for seam in reversed(self.seams):
            if seam.role == "suspends":
                return f"suspended: {seam.name}"
        return "" if any(seam.role == "opens" for seam in self.seams) else OUTSIDE_SEAMS

    def is_own(self, seam_name: str) -> bool:
        """Tell whether a seam on the stack was entered by this child process, and not by the one that forked it."""
        frame = next((frame for seam, frame in strict_zip(self.seams, self.frames) if seam.name == seam_name), None)
        while frame is not None:
            if frame.f_code is BaseProcess._bootstrap.__code__:  # type: ignore[attr-defined]
                return True
            frame = frame.f_back
        return False

    def locals_of(self, seam_name: str) -> Mapping[str, Any] | None:
        """Return the local variables of the innermost frame of a seam, or None where it is not on the stack."""
        for seam, frame in strict_zip(self.seams, self.frames):
            if seam.name == seam_name:
                return locals_of(frame)
        return None


def _file_of_host(name: str, host: Path) -> str | None:
    """Return a source file's path relative to a host's folder (resolved), or None where it is not the host's.

    A host may hold its own virtual environment: what is installed there is not the host. And "<string>", resolved,
    would seem to lie in the current folder.
    """
    path = Path(name).resolve()
    own = path.is_relative_to(host) and "site-packages" not in path.parts and path.is_file()
    return str(path.relative_to(host)) if own else None


def locals_of(frame: FrameType) -> dict[str, Any]:
    """Copy a frame's local variables."""
    variables = frame.f_locals
    copied = dict(variables)
    # Up to Python 3.12 a cached snapshot, which would keep the host's tensors alive; unless the host has it too, from a
    # locals() of its own: then it has three owners besides this line's.
    if type(variables) is dict and variables is not frame.f_globals and sys.getrefcount(variables) <= 3:
        variables.clear()
    return copied


class StackReader:
    """Reads places off the stack of the calling thread, from a host's folder and its seams' definitions."""

    def __init__(self, host: Path, definitions: Sequence[Definition] = ()) -> None:
        self._host = host.resolve()
        self._by_position = {(str(d.file), d.seam.function, d.first_line): d.seam for d in definitions}
        # A function that was sent to another process by its code, as joblib does, has lost its file.
        self._without_file = {(d.seam.function, d.first_line): d.seam for d in definitions if d.first_line}
        # By identity: code objects compare by content, not by file, and are slow to hash.
        self._known: dict[int, tuple[CodeType, str | None, Seam | None]] = {}

    def read(self) -> Place:
        """Read where the caller stands."""
        return self._read(sys._getframe(1))

    def open_in_another_thread(self) -> str:
        """Return an open seam under which another thread stands, if this is not the main one; empty where none is."""
        if threading.current_thread() is threading.main_thread():
            return ""
        others = [frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident()]
        found = [place.seams[-1].name for place in map(self._read, others) if not place.why_unguarded]
        return found[0] if found else ""

    def _read(self, frame: FrameType | None) -> Place:
        site = function = None
        seams: list[Seam] = []
        frames: list[FrameType] = []
        while frame is not None:
            _, file, seam = self._look_up(frame.f_code)
            if file is not None and site is None:
                site, function = f"{file}:{frame.f_lineno}", frame.f_code.co_name
            if seam is not None:
                seams.append(seam)
                frames.append(frame)
            frame = frame.f_back
        return Place(site, function, tuple(seams), tuple(frames))

    def host_frame(self, frame: FrameType | None) -> FrameType | None:
        """Return the innermost frame of the host's files, from a frame outwards; None where there is none."""
        while frame is not None and self.file_of(frame) is None:
            frame = frame.f_back
        return frame

    def file_of(self, frame: FrameType) -> str | None:
        """Return a frame's file relative to the host's folder, or None where it is not the host's."""
        return self._look_up(frame.f_code)[1]

    def _look_up(self, code: CodeType) -> tuple[CodeType, str | None, Seam | None]:
        known = self._known.get(id(code))
        if known is None:
            path = Path(code.co_filename).resolve()
            first = 0 if code.co_name == MODULE_LEVEL else code.co_firstlineno
            seam = self._by_position.get((str(path), code.co_name, first))
            if code.co_filename.startswith("<"):
                seam = self._without_file.get((code.co_name, first))
            known = self._known[id(code)] = (code, _file_of_host(code.co_filename, self._host), seam)
        return known
