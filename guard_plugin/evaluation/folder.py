"""The folder of a benchmark: one protocol, its students, their records and results.json."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.distilled import load_untrusted
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.records import RecordFolder, atomic_file

__all__ = ["BenchmarkFolder"]


class BenchmarkFolder:
    """What a benchmark keeps on the disk; each file appears complete or not at all.

    Args:
        path: The folder; made where it is missing.
        fingerprint: All that the numbers depend on, as JSON values.

    Raises:
        UnusableInput: If the folder cannot be written to, or holds a benchmark with another fingerprint.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        self.path = path
        wanted = json.loads(json.dumps(fingerprint))
        if (path / "fingerprint.json").exists():
            self._compare(wanted)
            return
        try:
            self._write_json("fingerprint.json", wanted)
        except OSError as error:
            raise UnusableInput(f"cannot write to {path}: {error}. Choose another --out") from error

    def records(self, student: int, examples: int) -> RecordFolder:
        """The records of a student, each of that many examples; none without the student they were measured on."""
        records = RecordFolder(self.path / "records" / f"student-{student}", examples)
        if not self._student(student).exists():
            # A student that is trained again need not be the same to the last bit.
            records.clear()
        return records

    def student(self, student: int, network: Callable[[], nn.Module], train: Callable[[], nn.Module]) -> nn.Module:
        """The trained student: loaded, or trained and kept.

        Args:
            student: Its number.
            network: Builds an untrained network of its architecture.
            train: Trains one.

        Returns:
            The network in eval mode, on the device that ``train`` chose, or else on the CPU.

        Raises:
            UnusableInput: If the kept student is of another architecture or cannot be read.
        """
        path = self._student(student)
        if not path.exists():
            trained = train()
            with atomic_file(path) as file:
                torch.save({name: tensor.cpu() for name, tensor in trained.state_dict().items()}, file)
            return trained
        with torch.random.fork_rng(devices=[]):
            loaded = network()
        try:
            loaded.load_state_dict(load_untrusted(path))
        except (RuntimeError, TypeError) as error:
            raise UnusableInput(f"{path} does not hold the expected network ({error}): delete it, run again") from error
        return loaded.eval()

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write results.json."""
        self._write_json("results.json", results)

    def _student(self, student: int) -> Path:
        return self.path / "students" / f"student-{student}.pt"

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        with atomic_file(self.path / name) as file:
            file.write(json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")

    def _compare(self, wanted: Mapping[str, Any]) -> None:
        file = self.path / "fingerprint.json"
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UnusableInput(f"{file} cannot be read ({error}): choose another --out") from error
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
