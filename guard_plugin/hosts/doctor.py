"""Whether a host is one that an adapter can guard, told from its source alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.hosts.adapter import Adapter
from guard_plugin.hosts.faults import FoundFault
from guard_plugin.hosts.profile import Profile
from guard_plugin.hosts.seams import Definition

__all__ = ["Diagnosis", "examine", "fitting"]


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one script: its seams, or the error that a run would end with, and known faults."""

    profile: Profile
    definitions: tuple[Definition, ...]
    problem: str | None
    faults: tuple[FoundFault, ...] = ()

    @property
    def status(self) -> str:
        """In words: "guarded", "runs as it is: REASON", "refused: REASON" or "BROKEN: ERROR"."""
        if self.problem is not None:
            return f"BROKEN: {self.problem}"
        if self.profile.refused:
            return f"refused: {self.profile.refused}"
        if self.profile.unguarded:
            return f"runs as it is: {self.profile.unguarded}"
        return "guarded"

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis for programs."""
        seams = [
            {"seam": d.seam.name, "role": d.seam.role, "file": str(d.file), "line": d.line} for d in self.definitions
        ]
        return {
            "script": self.profile.script,
            "status": self.status,
            "ok": self.problem is None,
            "seams": seams,
            "faults": [fault.to_json(repaired=False) for fault in self.faults],
        }


def fitting(adapters: Iterable[Adapter], folder: Path) -> dict[str, list[Diagnosis]]:
    """Look for each adapter's scripts in a folder; return, by adapter, what was found of those that have one there."""
    found = {}
    for adapter in adapters:
        try:
            found[adapter.name] = examine(adapter, folder)
        except UnusableInput:
            continue
    return found


def examine(adapter: Adapter, folder: Path) -> list[Diagnosis]:
    """Look for an adapter's scripts and their seams in a host's folder, running nothing.

    Raises:
        UnusableInput: If the folder holds none of the scripts that the adapter guards.
    """
    if not folder.is_dir():
        raise UnusableInput(f"no such folder: {folder}")
    guarded = [profile.script for profile in adapter.profiles if not (profile.refused or profile.unguarded)]

    def holds_one(place: Path) -> bool:
        return any((place / script).is_file() for script in guarded)

    if not holds_one(folder):
        above = next(filter(holds_one, folder.resolve().parents), None)
        fix = f"{above} has one: give that folder" if above else f"is this a clone of {adapter.host}?"
        raise UnusableInput(f"adapter {adapter.name}: expected {' or '.join(guarded)} in {folder}, found none: {fix}")
    return [_diagnose(adapter, profile, folder) for profile in adapter.profiles if (folder / profile.script).is_file()]


def _diagnose(adapter: Adapter, profile: Profile, folder: Path) -> Diagnosis:
    script = folder / profile.script
    faults = tuple(profile.find_faults(script))
    try:
        return Diagnosis(profile, tuple(adapter.locate(profile, script)), None, faults)
    except GuardError as error:
        return Diagnosis(profile, (), str(error), faults)
