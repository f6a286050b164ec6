"""The hooks that a plugin may implement: all there is to extend, in one file.

A plugin is a module or object with functions of these names, each marked ``@guard_plugin.hookimpl``, which a
distribution names under the entry-point group ``guard_plugin``. An implementation may leave out arguments it does not
need. docs/writing-an-adapter.md has a complete example. Whatever an implementation raises becomes PluginError, which
names hook and distribution; GuardError and KeyboardInterrupt stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from guard_plugin.attacks import Attack
    from guard_plugin.distilled import DistilledSet
    from guard_plugin.hosts import Adapter
    from guard_plugin.injection import Ledger, LossCall
    from guard_plugin.injection.calls.stack import Place
    from guard_plugin.penalties import Penalty

__all__ = [
    "PROJECT",
    "benchmark_ended",
    "compute_penalty",
    "guarded_step",
    "hookimpl",
    "is_real_data",
    "read_distilled",
    "register_adapters",
    "register_attacks",
    "register_penalties",
    "run_ended",
    "run_started",
]

PROJECT = "guard_plugin"

hookimpl = pluggy.HookimplMarker(PROJECT)
_hookspec = pluggy.HookspecMarker(PROJECT)


@_hookspec
def register_adapters() -> Sequence[Adapter]:  # type: ignore[empty-body]
    """Return adapters, each for one host: their names become usable in ``guard run NAME``."""


@_hookspec
def register_penalties() -> Sequence[type[Penalty]]:  # type: ignore[empty-body]
    """Return penalty classes: their names become usable in ``guard run --penalty NAME``."""


@_hookspec
def register_attacks() -> Sequence[type[Attack]]:  # type: ignore[empty-body]
    """Return attack classes: their names become usable in ``guard benchmark --attacks NAME``."""


@_hookspec(firstresult=True)
def is_real_data(call: LossCall, place: Place, source: str) -> bool | None:
    """Decide whether a loss call under an open seam is on real data; None leaves it to the next plugin, then to us.

    ``place.site`` is the host's line, "main.py:191", and ``place.function`` the name of its function. ``source`` says
    what made the batch, in the words of ``guard observe``: "a DataLoader over CIFAR10", "a copy of learned images".
    Where an implementation takes it, what the host computes is followed for it, which takes time.
    """


@_hookspec(firstresult=True)
def compute_penalty(call: LossCall, penalty: Penalty) -> Tensor | None:
    """Compute the penalty's term, weight included, in place of its own way; None leaves it to the next.

    Its gradients must reach the parameters of ``call.network``: compute it by this network, and not by a copy.
    """


@_hookspec
def guarded_step(call: LossCall, value: Tensor) -> None:
    """Observe a loss call that received the penalty ``value`` (a detached scalar)."""


@_hookspec
def run_started(ledger: Ledger) -> None:
    """Observe that guarding began, before the first line of the host's script."""


@_hookspec
def run_ended(ledger: Ledger) -> None:
    """Observe that guarding ended, well or not: ``ledger.outcome`` tells."""


@_hookspec
def benchmark_ended(results: Mapping[str, Any], folder: Path) -> None:
    """Observe a finished benchmark: what ``folder``/results.json holds; of several processes, in the main one alone."""


@_hookspec(firstresult=True)
def read_distilled(adapter: str, path: Path) -> Sequence[DistilledSet] | None:
    """Read what the host of ``adapter`` wrote: one distilled set per experiment; None for another host's adapter."""
