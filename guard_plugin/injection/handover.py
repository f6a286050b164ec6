"""Markers beside the files that one script hands to another: were these made under GUARD, and how?"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.injection.ledger import Ledger
from guard_plugin.injection.ranks import speaks
from guard_plugin.injection.stack import Place
from guard_plugin.injection.told import HandedFiles

__all__ = ["Handover", "marker_of", "why_not_guarded"]


def marker_of(file: Path) -> Path:
    """Return where the marker of a file lies: beside it, so that no host reads it."""
    return file.with_name(f"{file.name}.guard.json")


def why_not_guarded(file: Path) -> str:
    """Say why a file is not known to be made under GUARD; nothing where it is.

    Args:
        file: The file that was handed on; its marker is looked for beside it.
    """
    marker = marker_of(file)
    if not marker.is_file():
        return f"there is no {marker.name} beside it"
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        ledger, sha256 = content["ledger"], content["sha256"]
        strength, outcome = float(ledger["penalty"]["strength"]), ledger["outcome"]
        faults = [fault["name"] for fault in ledger["faults"] if not fault["repaired"]]
    except (ValueError, KeyError, TypeError) as error:
        return f"{marker.name} cannot be read ({type(error).__name__}: {error})"
    if sha256 != _sha256(file):
        return f"it is another file than {marker.name} was written for"
    if strength == 0:
        return "it was made at strength 0"
    if outcome != "complete":
        return f"the run that wrote it was {outcome}"
    if faults:
        return f"the run that wrote it had a fault of the host, {', '.join(faults)}, which --repair mends"
    return ""


class Handover:
    """The files that a script hands on or takes over, in one run.

    Args:
        writes: What it hands on, if anything.
        reads: What it takes over, if anything.
        ledger: Where it is noted.
    """

    def __init__(self, writes: HandedFiles | None, reads: HandedFiles | None, ledger: Ledger) -> None:
        self._writes = writes
        self._reads = reads
        self._ledger = ledger
        self._found: dict[Path, tuple[int, int]] = {}
        self._folder: Path | None = None

    def learn(self, place: Place) -> None:
        """Learn the folders from the host's local variables, as soon as they tell.

        What was taken over and not made under GUARD is warned of at once, on stderr.

        Raises:
            SeamError: If the variables do not tell.
        """
        if self._writes is not None and self._folder is None:
            variables = place.locals_of(self._writes.seam)
            if variables is not None:
                self._folder = self._writes.locate(variables)
                self._found = {file: _state(file) for file in self._folder.glob(self._writes.pattern)}
        if self._reads is not None and self._ledger.taken_over is None:
            variables = place.locals_of(self._reads.seam)
            if variables is not None:
                self._take_over(self._reads.locate(variables), self._reads.pattern)

    def mark(self) -> None:
        """Leave a marker beside each file that the script has written since its folder was learnt.

        Raises:
            UnusableInput: If a marker cannot be written.
        """
        if self._writes is None or self._folder is None:
            return
        for file in sorted(self._folder.glob(self._writes.pattern)):
            if self._found.get(file) != _state(file):
                _leave_marker(file, self._ledger.to_json())

    def _take_over(self, folder: Path, pattern: str) -> None:
        reasons = {file.name: why_not_guarded(file) for file in sorted(folder.glob(pattern))}
        self._ledger.taken_over = reasons
        plain = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
        if plain and speaks():
            print(
                f"guard: warning: of {len(reasons)} file(s) that this script reads from {folder}, {len(plain)} are not "
                f"known to be made under GUARD, and what it distils from them will not be a GUARD result: "
                f"{'; '.join(plain)}",
                file=sys.stderr,
            )


def _leave_marker(file: Path, ledger: dict[str, Any]) -> None:
    content = {"schema": 1, "file": file.name, "sha256": _sha256(file), "ledger": ledger}
    try:
        marker_of(file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UnusableInput(f"no marker can be written to {marker_of(file)}: {error.strerror}") from error


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
