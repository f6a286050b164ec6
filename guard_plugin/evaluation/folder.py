"""The folder of a benchmark: one protocol, its students, their records and results.json."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.records import RecordFolder
from guard_plugin.files import UNFINISHED, atomic_file, explain_write_errors, load_untrusted

__all__ = ["BenchmarkFolder"]


class BenchmarkFolder:
    """What a benchmark keeps on the disk; each file appears complete or not at all.

    Args:
        path: The folder; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def claimed(self, fingerprint: Mapping[str, Any], room: int) -> Iterator[None]:
        """Keep every other process out, after a look at whether the work can be done here.

        The system releases the claim however this process ends.

        Args:
            fingerprint: All that the numbers depend on, as JSON values.
            room: Bytes that will be written at most.

        Raises:
            UnusableInput: If another process works here, the folder cannot be written to, has too little room, or holds
                a benchmark with another fingerprint.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise self._unwritable(error) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UnusableInput(
                    f"another process is working in {self.path}: wait for it, or choose another --out"
                ) from error
            self._begin(fingerprint, room)
            yield

    def records(self, student: int, examples: int) -> RecordFolder:
        """The records of a student, each of that many examples."""
        return RecordFolder(self.path / "records" / f"student-{student}", examples)

    def has_student(self, student: int) -> bool:
        """Whether a trained student is kept."""
        return self._student(student).exists()

    def keep_student(self, student: int, network: nn.Module, examples: int) -> None:
        """Keep a trained student, and forget what was measured on another one of its number."""
        # A student that is trained again need not be the same to the last bit.
        self.records(student, examples).clear()
        with explain_write_errors(self._student(student)), atomic_file(self._student(student)) as file:
            torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, file)

    def load_student(self, student: int, network: Callable[[], nn.Module]) -> nn.Module:
        """A trained student, in eval mode, on the CPU.

        Args:
            student: Its number.
            network: Builds an untrained network of its architecture.

        Raises:
            UnusableInput: If the kept student is of another architecture or cannot be read.
        """
        path = self._student(student)
        with torch.random.fork_rng(devices=[]):
            loaded = network()
        try:
            loaded.load_state_dict(load_untrusted(path))
        except (RuntimeError, TypeError, UnusableInput) as error:
            raise UnusableInput(f"{path} does not hold the expected network ({error}): delete it, run again") from error
        return loaded.eval()

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write results.json."""
        with explain_write_errors(self.path / "results.json"):
            self._write_json("results.json", results)

    def _student(self, student: int) -> Path:
        return self.path / "students" / f"student-{student}.pt"

    def _begin(self, fingerprint: Mapping[str, Any], room: int) -> None:
        wanted = json.loads(json.dumps(fingerprint))
        try:
            for leftover in self.path.rglob(f"*{UNFINISHED}"):
                leftover.unlink()
            self._check_room(room)
            if (self.path / "fingerprint.json").exists():
                self._compare(wanted)
            else:
                self._write_json("fingerprint.json", wanted)
        except OSError as error:
            raise self._unwritable(error) from error

    def _check_room(self, room: int) -> None:
        """Have the system set so much aside for a moment, which quotas count too."""
        probe = self.path / f".room{UNFINISHED}"
        try:
            with probe.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, room)
                else:  # macOS
                    for _ in range(0, room, 2**20):
                        file.write(bytes(2**20))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UnusableInput(
                f"{self.path} has no room for the {room / 2**20:.0f} MiB that this benchmark may write: free some, or "
                f"choose another --out"
            ) from error
        finally:
            probe.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> UnusableInput:
        return UnusableInput(f"cannot write to {self.path}: {error}. Choose another --out")

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        with atomic_file(self.path / name) as file:
            file.write(json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")

    def _compare(self, wanted: Mapping[str, Any]) -> None:
        file = self.path / "fingerprint.json"
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UnusableInput(f"{file} cannot be read ({error}): choose another --out") from error
        if not isinstance(kept, dict):
            raise UnusableInput(f"expected a JSON object in {file}, got {type(kept).__name__}: choose another --out")
        differences = [
            f"{key} (there: {kept.get(key)}; now: {wanted.get(key)})"
            for key in dict.fromkeys([*kept, *wanted])
            if kept.get(key) != wanted.get(key)
        ]
        if differences:
            raise UnusableInput(
                f"{self.path} holds a benchmark of another subject or protocol, which differs in "
                f"{'; '.join(differences)}: choose another --out, or repeat that protocol to go on with it"
            )
