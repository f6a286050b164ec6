"""The folder of a benchmark: one protocol, its students, their records and results.json."""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.evaluation.proof import Proof
from guard_plugin.evaluation.records import RecordFolder
from guard_plugin.evaluation.results import shown_setting
from guard_plugin.files import (
    atomic_file,
    explain_write_errors,
    load_untrusted,
    read_json_object,
    refuse_foreign_files,
    remove_unfinished,
    write_json,
)
from guard_plugin.state_dicts import load_tensors

__all__ = ["BenchmarkFolder", "locked"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and keep every other process out of it; the system releases it however this process ends.

    Raises:
        UnusableInput: If another process is in it, or it cannot be written to.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # A file or link of another's is left as it is.
            lock = stack.enter_context(os.fdopen(os.open(folder / ".lock", flags, 0o666), "rb+", buffering=0))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnusableInput(
                f"another process is working in {folder}: wait for it, or choose another --out"
            ) from error
        except OSError as error:
            raise UnusableInput(f"cannot write to {folder}: {error}. Choose another --out") from error
        yield


class BenchmarkFolder:
    """What a benchmark of so many examples keeps on the disk; each file appears complete or not at all."""

    def __init__(self, path: Path, examples: int) -> None:
        self._path = path
        self._examples = examples

    @contextmanager
    def claimed(self, fingerprint: Mapping[str, Any]) -> Iterator[None]:
        """Keep every other process out of the folder, and check that the benchmark in it is this one.

        The fingerprint is everything that the numbers depend on, as JSON values.
        """
        with locked(self._path):
            with explain_write_errors(self._path, "Choose another --out"):
                self._begin(json.loads(json.dumps(fingerprint)))
            yield

    def records(self, student: int) -> RecordFolder:
        """Return the records of a student."""
        return RecordFolder(self._path / "records" / f"student-{student}", self._examples)

    def has_student(self, student: int) -> bool:
        """Tell whether a trained student is kept."""
        return self._student(student).exists()

    def keep_student(self, student: int, network: nn.Module) -> None:
        """Keep a trained student, and delete what was measured on another one of its number."""
        # A student that is trained again need not be the same to the last bit.
        self.records(student).clear()
        state = io.BytesIO()  # torch.save into a file on a full disk fails with a RuntimeError that hides the cause
        torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, state)
        with explain_write_errors(self._student(student)), atomic_file(self._student(student)) as file:
            file.write(state.getbuffer())

    def load_student(self, student: int, network: Callable[[], nn.Module]) -> nn.Module:
        """Return a trained student, in eval mode, on the CPU; ``network`` builds an untrained one."""
        path = self._student(student)
        with torch.random.fork_rng(devices=[]):
            loaded = network()
        try:
            tensors = load_untrusted(path)
            missing = loaded.state_dict().keys() - tensors.keys()
            if missing:
                raise UnusableInput(f"it lacks {', '.join(sorted(missing))}")
            load_tensors(loaded, tensors)
        except (RuntimeError, TypeError, AttributeError, UnusableInput, UnsafeFile) as error:
            raise UnusableInput(f"{path} does not hold the expected network ({error}): delete it, run again") from error
        return loaded.eval()

    def proof(self, now: Proof) -> Proof:
        """Return what is told of the subject now, joined with what a finished results.json recorded (``Proof.after``).

        Raises:
            UnusableInput: If they contradict each other, or the results.json there cannot be read.
        """
        file = self._path / "results.json"
        if not os.path.lexists(file):
            return now
        try:
            recorded = Proof.of_results(_read_results(file))
            return now.to_json().after(recorded, self._path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnusableInput(
                f"expected in {file} what guard benchmark wrote, found something else ({type(error).__name__}): delete "
                f"it, and run again"
            ) from error

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write results.json."""
        with explain_write_errors(self._path / "results.json"):
            write_json(self._path / "results.json", results)

    def _student(self, student: int) -> Path:
        return self._path / "students" / f"student-{student}.pt"

    def _begin(self, wanted: dict[str, Any]) -> None:
        """Write the fingerprint, or compare it with the one there; remove what killed processes left unfinished."""
        file = self._path / "fingerprint.json"
        refuse_foreign_files(self._path, ("results.json", "records", "students"), file.name)
        if not os.path.lexists(file):
            write_json(file, wanted)
            return
        try:
            kept = read_json_object(file)
        except UnusableInput as error:
            raise UnusableInput(f"{error}: choose another --out") from error
        differences = [
            _told_apart(key, kept.get(key), wanted.get(key))
            for key in dict.fromkeys([*kept, *wanted])
            if kept.get(key) != wanted.get(key)
        ]
        if differences:
            raise UnusableInput(
                f"{self._path} holds a benchmark of another subject or protocol, which differs in "
                f"{'; '.join(differences)}: choose another --out, or repeat that protocol to go on with it"
            )
        for folder in (self._path, self._path / "students", *self._path.glob("records/student-*")):
            remove_unfinished(folder)


def _read_results(file: Path) -> dict[str, Any]:
    try:
        return read_json_object(file)
    except UnusableInput as error:
        raise UnusableInput(f"{error}: delete it, and run again") from error


def _told_apart(key: str, there: Any, now: Any) -> str:
    """Write two values of a setting: attacks by name and radius, unless these are the same."""
    shown = shown_setting(there), shown_setting(now)
    shown = (there, now) if shown[0] == shown[1] else shown
    return f"{key} (there: {shown[0]}; now: {shown[1]})"
