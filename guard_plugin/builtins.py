"""What the core itself brings, as a plugin like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.plain import read_plain
from guard_plugin.hookspecs import hookimpl
from guard_plugin.penalties import Curvature, FastTraining, GradientNorm, Penalty, PgdTraining, Trades

if TYPE_CHECKING:
    from torch import Tensor

    from guard_plugin.attacks import Attack
    from guard_plugin.injection import LossCall

__all__ = ["compute_penalty", "read_distilled", "register_attacks", "register_penalties"]


@hookimpl
def register_penalties() -> Sequence[type[Penalty]]:
    """Bring the curvature penalty, and what it is compared with."""
    return [Curvature, GradientNorm, PgdTraining, Trades, FastTraining]


@hookimpl
def register_attacks() -> Sequence[type[Attack]]:
    """Bring the attacks."""
    from guard_plugin.attacks import ATTACKS  # only now: a training script that is guarded needs none

    return ATTACKS


@hookimpl(trylast=True)
def compute_penalty(call: LossCall, penalty: Penalty) -> Tensor:
    """Compute a penalty by its formula, where no plugin computes it; a plugin's wrapper of the hook gets this value."""
    if penalty.on_predictions:
        return penalty(call.judged_network(), call.inputs, call.targets, loss_fn=call.criterion_fn())
    return penalty(call.network, call.inputs, call.targets, loss_fn=call.loss_fn())


@hookimpl
def read_distilled(adapter: str, path: Path) -> Sequence[DistilledSet] | None:
    """Read images and labels in plain files, for the adapter name "plain"."""
    return read_plain(path) if adapter == "plain" else None
