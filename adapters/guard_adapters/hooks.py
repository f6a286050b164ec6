"""The hooks that each adapter's module implements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from guard_plugin import hookimpl
from guard_plugin.distilled import DistilledSet
from guard_plugin.hosts import Adapter

__all__ = ["hooks_of"]


def hooks_of(ours: Adapter, read: Callable[[Path], Sequence[DistilledSet]]) -> tuple[Any, Any]:
    """Return a plugin's ``register_adapters`` and ``read_distilled``; ``read`` reads what the host writes."""

    @hookimpl
    def register_adapters() -> Sequence[Adapter]:
        return [ours]

    @hookimpl(trylast=True)  # a plugin with a better reader for this host comes first
    def read_distilled(adapter: str, path: Path) -> Sequence[DistilledSet] | None:
        return read(path) if adapter == ours.name else None

    return register_adapters, read_distilled
