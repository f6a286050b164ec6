"""Processes that begin anew, by "spawn" or "forkserver", read the host's files themselves, and have them mended too.

Such a process first loads what multiprocessing prepared for it: where the script is, and the import path. Together with
this it loads the faults, and mends them before it imports anything of the host.
"""

from __future__ import annotations

import functools
import multiprocessing.spawn
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from guard_plugin.hosts.faults.fault import FoundFault, always

if TYPE_CHECKING:
    from guard_plugin.hosts.faults.repairs import Repairs

__all__ = ["mend_processes"]

_MAIN = "_mended_main_of_the_host"  # the module that the script is in such a process, before it becomes __mp_main__


@contextmanager
def mend_processes(found: Sequence[FoundFault]) -> Iterator[None]:
    """Mend faults in the processes that this one starts anew."""
    plain = multiprocessing.spawn.get_preparation_data

    @functools.wraps(plain)
    def prepared(name: str) -> dict[str, Any]:
        data = plain(name)
        main = Path(data.get("init_main_from_path", "")).resolve()
        is_mended = main in [one.file for one in found]
        if is_mended:
            data["init_main_from_name"] = _MAIN  # which the process asks its import system for
            del data["init_main_from_path"]
        data["guard_plugin"] = _Mends(tuple(found), main if is_mended else None)
        return data

    with patch.object(multiprocessing.spawn, "get_preparation_data", prepared):
        yield


@dataclass(frozen=True)
class _Mends:
    """What is mended in the process that unpickles this."""

    found: tuple[FoundFault, ...]
    main: Path | None

    def __reduce__(self) -> tuple[Any, ...]:
        there = tuple(replace(one, fault=replace(one.fault, only_if=always)) for one in self.found)
        return _mend, (there, self.main)


def _mend(found: tuple[FoundFault, ...], main: Path | None) -> Repairs:
    from guard_plugin.hosts.faults.repairs import Repairs

    return Repairs(found, None if main is None else (_MAIN, main))
