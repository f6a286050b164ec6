"""Entries of a leaderboard: folders of finished benchmarks, whose records are read, and results.json files alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_plugin.comparison.comparing import labels_of
from guard_plugin.comparison.reading import Measured, read_benchmark
from guard_plugin.comparison.results_file import Reported, explain_misfits, read_results
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.evaluation.results import accuracy_entry
from guard_plugin.files import existing_file, file_sha256
from guard_plugin.foreign_text import on_one_line
from guard_plugin.leaderboard.checking import check_results
from guard_plugin.leaderboard.proof import Proof, proof_of
from guard_plugin.versions import strict_zip

__all__ = ["Entry", "read_entries"]

_RESULTS = "results.json"
_LARGEST = 1 << 24  # bytes of a results.json: one of a hundred students has some 100,000


@dataclass(frozen=True)
class Entry:
    """A finished benchmark of distilled images.

    Args:
        label: What it is called: its path, as far as it takes to tell it from the others.
        path: The folder or file that was given.
        sha256: The SHA-256 of its results.json.
        reported: What its results.json says; a ``Measured`` where records were read.
        accuracy: Column -> "mean" and "ci95", as fractions: from the records, where there are any.
        proof: What its markers or ledgers tell.
    """

    label: str
    path: Path
    sha256: str
    reported: Reported
    accuracy: dict[str, dict[str, Any]]
    proof: Proof

    @property
    def measured(self) -> Measured | None:
        """The benchmark with its outcomes per example; None where these are not there."""
        return self.reported if isinstance(self.reported, Measured) else None

    @property
    def source(self) -> str:
        """Where its figures come from, in words."""
        return "verified from its records" if self.measured else "as reported: no records"

    @property
    def ipc(self) -> float:
        """Images per class."""
        return float(self.reported.results["subject"]["ipc"])

    @property
    def method(self) -> str:
        """The adapter that read the distilled images."""
        return str(self.reported.results["subject"]["adapter"])


def read_entries(paths: Sequence[Path]) -> list[Entry]:
    """Read folders that ``guard benchmark --out`` finished, and files of results alone, and check them all.

    Raises:
        UnusableInput: If there is none, one is given twice, or any of them cannot be ranked, with the reason for each.
    """
    if not paths:
        raise UnusableInput(
            "expected folders that guard benchmark --out wrote, or files like its results.json, got none"
        )
    entries, refused = [], []
    # A file that has the usual name is called after its folder.
    named = (path.parent if path.name == _RESULTS else path for path in map(Path.resolve, paths))
    labels = labels_of(list(named))
    for label, path in strict_zip(labels, paths):
        try:
            entries.append(_read(label, path))
        except GuardError as error:
            refused.append(on_one_line(str(error)))
    refused += _twice(entries)
    if refused:
        listed = "".join(f"\n  {reason}" for reason in refused)
        raise UnusableInput(f"{len(refused)} of {len(paths)} cannot be ranked, so nothing was written:{listed}")
    return entries


def _read(label: str, path: Path) -> Entry:
    file = path / _RESULTS if path.is_dir() else path
    if path.is_dir():
        reported: Reported = read_benchmark(path)
    else:
        size = existing_file(path).stat().st_size
        if size > _LARGEST:
            raise UnusableInput(f"{path} has {size} bytes, which is more than any results.json ({_LARGEST})")
        reported = read_results(path)
    check_results(file, reported)
    with explain_misfits(file):
        proof = proof_of(reported)
    return Entry(label, path, file_sha256(file), reported, _accuracy(reported), proof)


def _accuracy(reported: Reported) -> dict[str, dict[str, Any]]:
    if isinstance(reported, Measured):
        return {column: accuracy_entry(correct, reported.sets) for column, correct in reported.correct.items()}
    accuracy: dict[str, dict[str, Any]] = reported.results["accuracy"]
    return accuracy


def _twice(entries: Sequence[Entry]) -> list[str]:
    """Say of entries with the same results.json that they are the same."""
    first: dict[str, Entry] = {}
    return [
        f"{entry.path} has the same results.json as {first[entry.sha256].path}: name it once"
        for entry in entries
        if first.setdefault(entry.sha256, entry) is not entry
    ]
