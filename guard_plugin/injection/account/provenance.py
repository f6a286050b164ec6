"""Notes which files a script writes for another one, and which it reads; leaves markers beside the first.

:mod:`guard_plugin.distilled.markers` reads them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import Any

import torch

from guard_plugin.distilled.markers import Origin, files_in, marked_sha256, marker_of, origin_of
from guard_plugin.files import write_json
from guard_plugin.foreign_text import tell
from guard_plugin.hosts.profile import Profile
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.patching import patch
from guard_plugin.ranks import is_main_process, is_one_of_several

__all__ = ["Provenance"]


class Provenance:
    """Notes, until :meth:`remove`, what the script writes (``torch.save``, PIL's ``Image.save``) and reads.

    Of what it reads (``torch.load``, and folders that its arguments name), what is not known to be made under GUARD, or
    was made under another penalty, is warned of on stderr. ``profile`` says which names count.
    """

    def __init__(self, profile: Profile, arguments: Sequence[str], ledger: Ledger) -> None:
        self._ledger = ledger
        self._into = profile.writes_into
        self._about = profile.written_about(arguments)
        self._started = time.time()
        self._begun: set[Path] = set()
        self._written: set[Path] = set()
        self._older: dict[Path, Origin] = {}
        writes = list(filter(None, (profile.writes, profile.writes_into)))
        if profile.reads or profile.reads_folders:
            ledger.taken_over = {}
        with contextlib.ExitStack() as undo:
            patch(undo, torch, "save", _noting((1, "f"), writes, self._writing))
            patch(undo, torch, "load", _noting((0, "f"), [profile.reads], self._reading))
            if profile.writes_into and importlib.util.find_spec("PIL") is not None:
                image = importlib.import_module("PIL.Image").Image
                patch(undo, image, "save", _noting((1, "fp"), writes, self._writing))
            for folder in profile.folders_read(arguments):
                self.take_over(folder)
            self._undo = undo.pop_all()

    def remove(self) -> None:
        """Give every function that was replaced back as it was."""
        self._undo.close()

    def written(self) -> list[Path]:
        """Return the files that this process wrote."""
        return sorted(self._written)

    def add(self, written: Iterable[Path]) -> None:
        """Note files that child processes wrote."""
        self._written.update(written)
        self._begun.update(map(self._unit, self._written))

    def mark(self) -> None:
        """Leave a marker beside each file or folder that this process wrote; warn where one cannot be written."""
        units = {self._unit(file) for file in self._written}
        for unit in sorted(self._begun):
            try:
                if not unit.exists():
                    marker_of(unit).unlink(missing_ok=True)  # it says that the run goes on
                elif unit in units:
                    self._mark(unit, marked_sha256(unit))
            except OSError as error:
                _warn(
                    f"no marker can be written to {marker_of(unit)} ({error.strerror}): it will not be known as GUARD's"
                )

    def take_over(self, path: Path) -> None:
        """Note a file or folder that the script takes over; warn if it is not known to be made under this penalty."""
        path, taken_over = path.absolute(), self._ledger.taken_over
        if taken_over is None or str(path) in taken_over or path in self._written:
            return
        origin, own = origin_of(path), self._ledger.penalty
        taken_over[str(path)] = origin.to_json()
        if origin.reason:
            _warn(
                f"{path} is not known to be made under GUARD ({origin.reason}): what is distilled from it is no GUARD "
                "result"
            )
        elif not self._ledger.unguarded and origin.penalty["name"] != own["name"]:
            _warn(
                f"{path} was made under penalty {origin.penalty['name']!r}, and this run's is {own['name']!r}: give "
                "both the same"
            )

    def _unit(self, file: Path) -> Path:
        """Return what is marked where this file was written: the file, or the folder that is filled."""
        if self._into and file.match(self._into):
            return file.parents[len(PurePath(self._into).parts) - 1]
        return file

    @contextlib.contextmanager
    def _writing(self, file: Path) -> Iterator[None]:
        unit = self._unit(file)
        if unit not in self._begun and file.parent.is_dir():
            self._begin(unit)
        yield
        self._written.add(file)

    def _begin(self, unit: Path) -> None:
        """From here on, an older run's marker vouches no more; what it says of a folder is kept."""
        self._begun.add(unit)
        if unit.is_dir():
            self._older[unit] = origin_of(unit)
        with contextlib.suppress(OSError):  # the final one will tell
            self._mark(unit, None)

    @contextlib.contextmanager
    def _reading(self, file: Path) -> Iterator[None]:
        yield
        self.take_over(file)

    def _mark(self, unit: Path, sha256: str | None) -> None:
        content = {
            "schema": 1,
            "file": unit.name,
            "sha256": sha256,
            "about": self._about,
            "others": self._not_vouched_for(unit) if sha256 and unit.is_dir() else 0,  # before the ledger: adds to it
            "ledger": self._ledger.to_json(),
        }
        write_json(marker_of(unit), content)

    def _is_of_this_run(self, file: Path) -> bool:
        """Tell whether this run wrote a file; under torchrun, whether one of its processes can have done so."""
        return file in self._written or (is_one_of_several() and file.stat().st_mtime >= self._started)

    def _not_vouched_for(self, folder: Path) -> int:
        """Count the files of a folder that neither this run wrote nor an older one whose marker was in order."""
        others = sum(not self._is_of_this_run(file) for file in files_in(folder))
        older, taken_over = self._older.get(folder), self._ledger.taken_over
        if not others or older is None or older.reason or taken_over is None:
            return others
        taken_over[str(folder)] = older.to_json()
        return 0


def _noting(
    position: tuple[int, str], patterns: Sequence[str], note: Callable[[Path], AbstractContextManager[None]]
) -> Callable[..., Any]:
    """Return what notes a file of such a name around the call that it is given to."""

    def noting(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        at, keyword = position
        place = args[at] if len(args) > at else kwargs.get(keyword)
        if isinstance(place, (str, os.PathLike)):
            file = Path(os.fsdecode(place)).absolute()
            if any(pattern and file.match(pattern) for pattern in patterns):
                with note(file):
                    return function(*args, **kwargs)
        return function(*args, **kwargs)

    return noting


def _warn(text: str) -> None:
    if is_main_process():
        tell(f"warning: {text}")
