"""Reading what a host wrote, through the plugin that knows its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.files import file_sha256, joint_sha256

if TYPE_CHECKING:
    from pluggy import HookRelay  # which pluggy 1.0 to 1.2 do not have

__all__ = ["read_distilled", "subject_of"]

_MOST_NAMED = 20  # files; a folder of images has thousands


def read_distilled(hooks: HookRelay, adapter: str, path: Path | str) -> list[DistilledSet]:
    """Read the distilled sets, one per experiment, of a file or folder that the host of the named adapter wrote.

    Raises:
        UnusableInput: If it does not exist, no plugin reads this host's files, or the contents do not fit.
        UnsafeFile: If reading it would run code.
    """
    path = Path(path)
    if not path.exists():
        raise UnusableInput(f"no such file or folder: {path}")
    sets: Sequence[DistilledSet] | None = hooks.read_distilled(adapter=adapter, path=path)
    if not sets:
        raise UnusableInput(f"no installed plugin reads distilled sets of adapter {adapter!r} (hook read_distilled)")
    return list(sets)


def subject_of(adapter: str, found: Mapping[Path, Sequence[DistilledSet]]) -> dict[str, Any]:
    """Describe for results.json distilled files or folders, with the sets that were read from each.

    Where one file was read, "sha256" is that file's. Where several were read, it is what
    ``sha256sum FILE... | sha256sum`` prints, with the files of each folder in the order of their paths and without
    their folders' names; "files" then lists them or, if they are too many, "n_files" counts them. "path" is the first
    of what was named, and "paths" are all.
    """
    paths, sets = list(found), [one for of in found.values() for one in of]
    files = [file for path, of in found.items() for file in _files(path, of)]
    several: dict[str, Any] = {}
    if files != paths[:1]:
        named = len(files) <= _MOST_NAMED
        several = {"files": [str(file) for file in files]} if named else {"n_files": len(files)}
    return {
        "kind": "distilled",
        "path": str(paths[0]),
        **({"paths": [str(path) for path in paths]} if len(paths) > 1 else {}),
        "sha256": joint_sha256((file.name, file) for file in files) if several else file_sha256(paths[0]),
        **several,
        "adapter": adapter,
        "ipc": sets[0].images_per_class,
        "experiments": len(sets),
    }


def _files(path: Path, sets: Sequence[DistilledSet]) -> list[Path]:
    """Return the files that the sets were read from."""
    found = {file for one in sets for file in one.files}
    if not found and path.is_dir():  # the plugin does not say which files it read: all that lie there
        found = {file for file in path.rglob("*") if file.is_file()}
    return sorted(found) or [path]
