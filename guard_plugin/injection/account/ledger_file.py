"""The file that --ledger names: "running" from before the script's first line, and completed at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from guard_plugin.errors import UnusableInput
from guard_plugin.files import is_special, json_text, read_json_object, write_json
from guard_plugin.injection.account.ledger import Ledger

__all__ = ["LedgerFile"]

_OURS = {"schema", "adapter", "script", "loss_calls"}
_STREAMS = (Path("/dev"), Path("/proc"))


class LedgerFile:
    """Where a run's ledger goes: a file, replaced whole, or a device or pipe, which gets the completed ledger only.

    UnusableInput is raised where it cannot be written, and where an existing file is no ledger: it stays as it is.
    """

    def __init__(self, path: Path, script: Path) -> None:
        named = path.absolute()
        self._path = named.resolve()
        self._stream: FileIO | None = None
        with self._explained():
            if _STREAMS[0] in named.parents or _STREAMS[1] in named.parents or is_special(self._path):
                # Held open: whoever reads a pipe takes its first end for the end of all.
                self._stream = named.open("ab", buffering=0)
                _write_all(self._stream, b"")  # a full device refuses this, too
            elif self._path.exists():
                self._refuse_other_files(script)
            else:
                self._path.parent.stat()

    def begin(self, ledger: Ledger) -> None:
        """Say that the run goes on, in place of what another run left here."""
        if self._stream is None:
            with self._explained():
                write_json(self._path, ledger.to_json())

    def complete(self, ledger: Ledger) -> None:
        """Write the ledger; where that fails, print it to stderr before UnusableInput is raised."""
        try:
            with self._explained():
                if self._stream is None:
                    self._path.parent.stat()  # a folder that the script removed is not made again
                    write_json(self._path, ledger.to_json())
                else:
                    _write_all(self._stream, json_text(ledger.to_json()).encode())
                    self._stream.close()
        except UnusableInput:
            print(json_text(ledger.to_json()), end="", file=sys.stderr)
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnusableInput(f"the ledger cannot be written to {self._path}: {error.strerror}") from error

    def _refuse_other_files(self, script: Path) -> None:
        if self._path.samefile(script):
            raise UnusableInput(f"--ledger {self._path} is the script itself: name another file")
        try:
            is_free = self._path.stat().st_size == 0 or read_json_object(self._path).keys() >= _OURS
        except UnusableInput:
            is_free = False
        if not is_free:
            raise UnusableInput(f"expected --ledger to name a new file or a ledger, found another file: {self._path}")


def _write_all(stream: FileIO, content: bytes) -> None:
    """Write all of the content, with one call for none; close the stream where that fails."""
    try:
        while content := content[stream.write(content) :]:
            pass
    except OSError:
        stream.close()
        raise
