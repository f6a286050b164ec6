"""Markers beside the files that one script writes for another: they tell whether GUARD acted, and how."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from guard_plugin.files import atomic_file, file_sha256
from guard_plugin.foreign_text import printable
from guard_plugin.injection.ledger import Ledger
from guard_plugin.ranks import is_main_process

__all__ = ["Provenance", "marker_of", "penalty_of", "why_not_guarded"]


def marker_of(file: Path) -> Path:
    """Return where the marker of a file lies: beside it, so that no host reads it."""
    return file.with_name(f"{file.name}.guard.json")


def why_not_guarded(file: Path) -> str:
    """Say why a file, by the marker beside it, is not known to be made under GUARD; an empty text where it is."""
    return _origin(file)[1]


def penalty_of(file: Path) -> str:
    """Return the penalty that a file is known, by its marker, to be made under; an empty text where it is not."""
    return _origin(file)[0]


def _origin(file: Path) -> tuple[str, str]:
    """Return the penalty that a file was made under and an empty text, or no penalty and why it is not known."""
    marker = marker_of(file)
    if not marker.is_file():
        return "", f"there is no {marker.name} beside it"
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        reason = _doubt(content, file)
        return ("", reason) if reason else (str(content["ledger"]["penalty"]["name"]), "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return "", f"{marker.name} cannot be read ({type(error).__name__})"


def _doubt(marker: Any, file: Path) -> str:
    ledger = marker["ledger"]
    # A fault at which a script stops did no harm to one that ended; older markers do not tell.
    faults = [str(fault["name"]) for fault in ledger["faults"] if not (fault["repaired"] or fault.get("stops"))]
    if ledger["outcome"] == "running":
        return "the run that wrote it did not end, or goes on"
    if marker["sha256"] != file_sha256(file):
        return "it is another file than its marker was written for"
    name = str(ledger["penalty"]["name"])
    if float(ledger["penalty"]["strength"]) == 0:
        return "it was made at strength 0"
    if ledger["outcome"] != "complete":
        return f"the run that wrote it ended as {str(ledger['outcome'])!r}"
    if not int(ledger["loss_calls"]["guarded"]):
        return "the run that wrote it guarded no loss call"
    if faults:
        return f"the run that wrote it had a fault of the host, {', '.join(map(repr, faults))}, which --repair mends"
    taken_over = ledger["taken_over"] or {}
    plain = [str(source) for source, made in taken_over.items() if made["reason"]]
    others = [f"{source} ({made['penalty']})" for source, made in taken_over.items() if made["penalty"] != name]
    if plain:
        return f"the run that wrote it went on from {', '.join(map(repr, plain))}, not known to be made under GUARD"
    if others:
        return f"the run that wrote it, under penalty {name}, went on from files of another: {', '.join(others)}"
    return ""


class Provenance:
    """Notes, until :meth:`remove`, the files that the script writes (``torch.save``) or reads (``torch.load``).

    A file that is read and not known to be made under GUARD, or was made under another penalty, is warned of on stderr.
    ``writes`` and ``reads`` are globs of file names ("replay_buffer_*.pt"), empty for none.
    """

    def __init__(self, writes: str, reads: str, ledger: Ledger) -> None:
        self._ledger = ledger
        self._begun: set[Path] = set()
        self._written: set[Path] = set()
        self._originals = (torch.save, torch.load)
        if reads:
            ledger.taken_over = {}
        torch.save = _noted(torch.save, 1, writes, self._writing)
        torch.load = _noted(torch.load, 0, reads, self._reading)

    def remove(self) -> None:
        """Give ``torch.save`` and ``torch.load`` back as they were."""
        torch.save, torch.load = self._originals

    def written(self) -> list[Path]:
        """Return the files that this process wrote."""
        return sorted(self._written)

    def add(self, written: Iterable[Path]) -> None:
        """Note files that child processes wrote."""
        self._written.update(written)
        self._begun.update(written)

    def mark(self) -> None:
        """Leave a marker beside each file that this process wrote; warn where one cannot be written."""
        for file in sorted(self._begun):
            try:
                if not file.is_file():
                    marker_of(file).unlink(missing_ok=True)  # it says that the run goes on
                elif file in self._written:
                    self._mark(file, file_sha256(file))
            except OSError as error:
                _warn(
                    f"no marker can be written to {marker_of(file)} ({error.strerror}): it will not be known as GUARD's"
                )

    @contextlib.contextmanager
    def _writing(self, file: Path) -> Iterator[None]:
        if file not in self._begun and file.parent.is_dir():
            self._begun.add(file)
            with contextlib.suppress(OSError):  # the final one will tell
                self._mark(file, None)  # from here on, an older run's marker vouches no more
        yield
        self._written.add(file)

    @contextlib.contextmanager
    def _reading(self, file: Path) -> Iterator[None]:
        yield
        self.take_over(file)

    def _mark(self, file: Path, sha256: str | None) -> None:
        content = {"schema": 1, "file": file.name, "sha256": sha256, "ledger": self._ledger.to_json()}
        with atomic_file(marker_of(file)) as opened:
            opened.write(json.dumps(content, indent=2).encode() + b"\n")

    def take_over(self, file: Path) -> None:
        """Note a file that the script takes over, and warn if it is not known to be made under GUARD."""
        taken_over = self._ledger.taken_over
        if taken_over is None or str(file) in taken_over or file in self._written:
            return
        (made_under, reason), own = _origin(file), str(self._ledger.penalty["name"])
        taken_over[str(file)] = {"penalty": made_under, "reason": reason}
        if not reason and made_under != own:
            _warn(f"{file} was made under penalty {made_under!r}, and this run's is {own!r}: give both the same")
        if reason:
            _warn(
                f"{file} is not known to be made under GUARD ({reason}): what is distilled from it is no GUARD result"
            )


def _noted(
    function: Callable[..., Any], position: int, names: str, note: Callable[[Path], AbstractContextManager[None]]
) -> Callable[..., Any]:
    """Wrap a function so that a file of such a name is noted around the call that it is given to."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        place = args[position] if len(args) > position else kwargs.get("f")
        if isinstance(place, (str, os.PathLike)):
            file = Path(os.fsdecode(place)).absolute()
            if fnmatch.fnmatch(file.name, names):
                with note(file):
                    return function(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped


def _warn(text: str) -> None:
    if is_main_process():
        print(printable(f"guard: warning: {text}"), file=sys.stderr)
