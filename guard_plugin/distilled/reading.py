"""Reading what a host wrote, through the plugin that knows its format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pluggy import HookRelay

from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.files import file_sha256, joint_sha256

__all__ = ["read_distilled", "subject_of"]

_MOST_NAMED = 20  # files; a folder of pictures has thousands


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
    """Describe a distilled file or folder for results.json.

    Args:
        adapter: The adapter's name.
        path: The file or folder.
        sets: What was read from it.

    Returns:
        Its description. "sha256" is that of the one file that was read; of several, which "files" then names, it is
        what ``sha256sum FILE... | sha256sum`` prints, with the files in the order of their paths and without their
        folders' names; of more than can be named, "n_files" is how many.
    """
    files = _files(path, sets)
    several: dict[str, Any] = {} if files == [path] else {"files": [str(file) for file in files]}
    if len(files) > _MOST_NAMED:
        several = {"n_files": len(files)}
    return {
        "kind": "distilled",
        "path": str(path),
        "sha256": file_sha256(path) if files == [path] else joint_sha256((file.name, file) for file in files),
        **several,
        "adapter": adapter,
        "ipc": sets[0].images_per_class,
        "experiments": len(sets),
    }


def _files(path: Path, sets: Sequence[DistilledSet]) -> list[Path]:
    told = {file for one in sets for file in one.files}
    if not told and path.is_dir():  # a plugin that does not tell: whatever lies there
        told = {file for file in path.rglob("*") if file.is_file()}
    return sorted(told) or [path]
