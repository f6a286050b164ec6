"""Whether a host is one that an adapter can guard, told from its source alone, and at which commit it is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.hosts.adapter import Adapter
from guard_plugin.hosts.faults import FoundFault
from guard_plugin.hosts.profile import Profile
from guard_plugin.hosts.seams import Definition

__all__ = ["Diagnosis", "commit_of", "examine", "fitting", "is_modified"]


def commit_of(folder: Path) -> str | None:
    """Return the commit of the git work tree that tracks a folder's Python files, or None.

    A host that was copied into another's work tree, and is not tracked there, has no commit.
    """
    tracked = _git(folder, "ls-files", "--", "*.py")
    return _git(folder, "rev-parse", "--verify", "HEAD") if tracked else None


def is_modified(folder: Path) -> bool:
    """Tell whether files of a git work tree differ from its commit; untracked files do not count."""
    return bool(_git(folder, "-c", "core.fsmonitor=false", "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what a git command says of a folder, whatever the caller's GIT_DIR; None where it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", env=environment)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


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
    if not any((folder / script).is_file() for script in guarded):
        raise UnusableInput(
            f"adapter {adapter.name}: expected {' or '.join(guarded)} in {folder}, found none: is this a clone of "
            f"{adapter.host}?"
        )
    return [_diagnose(adapter, profile, folder) for profile in adapter.profiles if (folder / profile.script).is_file()]


def _diagnose(adapter: Adapter, profile: Profile, folder: Path) -> Diagnosis:
    script = folder / profile.script
    faults = tuple(profile.find_faults(script))
    try:
        return Diagnosis(profile, tuple(adapter.locate(profile, script)), None, faults)
    except GuardError as error:
        return Diagnosis(profile, (), str(error), faults)
