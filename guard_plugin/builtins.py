"""What the core itself brings, as a plugin like any other."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.plain import read_plain
from guard_plugin.evaluation.attacks import ATTACKS, Attack
from guard_plugin.hookspecs import hookimpl
from guard_plugin.injection import LossCall
from guard_plugin.penalties import Curvature, FastTraining, GradientNorm, Penalty, PgdTraining, Trades

__all__ = ["compute_penalty", "read_distilled", "register_attacks", "register_penalties"]


@hookimpl
def register_penalties() -> Sequence[type[Penalty]]:
    """Bring the curvature penalty, and what it is compared with."""
    return [Curvature, GradientNorm, PgdTraining, Trades, FastTraining]


@hookimpl
def register_attacks() -> Sequence[type[Attack]]:
    """Bring the attacks."""
    return ATTACKS


@hookimpl(trylast=True)
def compute_penalty(call: LossCall, penalty: Penalty) -> Tensor:
    """Compute a penalty its own way, where no plugin has another."""
    return penalty(call.network, call.inputs, call.targets, loss_fn=call.loss_fn())


@hookimpl
def read_distilled(adapter: str, path: Path) -> Sequence[DistilledSet] | None:
    """Read images and labels in plain files, for the adapter name "plain"."""
    return read_plain(path) if adapter == "plain" else None
