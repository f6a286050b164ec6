"""Reading what a host wrote, through the plugin that knows its format."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pluggy import HookRelay

from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.errors import UnusableInput

__all__ = ["read_distilled", "subject_of"]


def read_distilled(hooks: HookRelay, adapter: str, path: Path) -> list[DistilledSet]:
    """Read the distilled sets of a file or folder, one per experiment.

    Args:
        hooks: The plugin manager's hooks.
        adapter: The name of the adapter whose host wrote it.
        path: The file or folder.

    Raises:
        UnusableInput: If it does not exist, no plugin reads this host's files, or the contents do not fit.
        UnsafeFile: If reading it would run code.
    """
    if not path.exists():
        raise UnusableInput(f"no such file or folder: {path}")
    sets: Sequence[DistilledSet] | None = hooks.read_distilled(adapter=adapter, path=path)
    if not sets:
        raise UnusableInput(f"no installed plugin reads distilled sets of adapter {adapter!r} (hook read_distilled)")
    return list(sets)


def subject_of(adapter: str, path: Path, sets: Sequence[DistilledSet]) -> dict[str, Any]:
    """Describe a distilled file for results.json.

    Args:
        adapter: The adapter's name.
        path: The file.
        sets: What was read from it.
    """
    return {
        "kind": "distilled",
        "path": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "adapter": adapter,
        "ipc": sets[0].images_per_class,
        "experiments": len(sets),
    }
