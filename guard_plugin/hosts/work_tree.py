"""At which commit a host is, and whether it was modified since: what git says of its work tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["commit_of", "is_modified"]


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
