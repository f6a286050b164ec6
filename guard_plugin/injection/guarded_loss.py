"""The loss that a host gets for a loss call on real data: its own and the penalty, or the penalty in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.calls.loss_call import LossCall
from guard_plugin.injection.calls.origins import own_passes
from guard_plugin.injection.paths import Paths, penalty_cut_off
from guard_plugin.penalties import Penalty
from guard_plugin.penalties.graph import nodes_behind

if TYPE_CHECKING:
    from pluggy import HookRelay  # which pluggy 1.0 to 1.2 do not have

__all__ = ["guarded_loss"]


def guarded_loss(call: LossCall, penalty: Penalty, paths: Paths) -> tuple[Tensor, Tensor]:
    """Return the loss that the host gets, with the penalty added or in the place of the host's, and the penalty."""
    with own_passes():
        guarded = paths.guarded(call, penalty)
        loss, value = _by_graph(call, penalty, paths.hooks) if guarded is None else guarded
    call.settle_by(loss)
    paths.hooks.guarded_step(call=call, value=value.detach())
    return loss, value


def _by_graph(call: LossCall, penalty: Penalty, hooks: HookRelay) -> tuple[Tensor, Tensor]:
    if penalty.combination == "replaces":
        _refuse_other_reductions(call, penalty)
    value = hooks.compute_penalty(call=call, penalty=penalty)
    if not isinstance(value, Tensor) or value.dim() != 0:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else value
        raise UnsupportedLoss(f"expected penalty {penalty.name!r} to be a scalar tensor, got {found}")
    if not _reaches(value, call.network):
        raise penalty_cut_off(penalty)
    return _combined(call, value.to(call.loss.dtype), penalty), value


def _reaches(value: Tensor, network: nn.Module) -> bool:
    """Tell whether gradients of a penalty's value reach a parameter of the network, as far as its graph shows."""
    trained = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    return id(value) in trained or any(
        # A reentrant checkpoint, which a plugin's own pass may have, hides the parameters that are behind it.
        id(getattr(node, "variable", None)) in trained or node.name() == "CheckpointFunctionBackward"
        for node in nodes_behind(value)
    )


def _combined(call: LossCall, value: Tensor, penalty: Penalty) -> Tensor:
    if penalty.combination == "added":
        return call.loss + value
    if penalty.strength < 1:
        return (1 - penalty.strength) * call.loss + value
    # DDP may begin to exchange gradients only where they pass its own output (static_graph): pass it a zero. Not by
    # way of the host's loss, which, where it is not finite, would make it NaN.
    distributed = isinstance(call.made_by.network, DistributedDataParallel)
    return value + (0 * torch.nan_to_num(call.output, 0.0, 0.0, 0.0)).sum() if distributed else value


def _refuse_other_reductions(call: LossCall, penalty: Penalty) -> None:
    """Refuse a loss that a mean over examples cannot stand in for: the host would be given one of another scale."""
    with torch.no_grad():
        mean = call.criterion_fn()(call.output, call.targets).mean()
    if not torch.isclose(mean.double(), call.loss.double(), rtol=1e-2, atol=1e-4, equal_nan=True):
        raise UnsupportedLoss(
            f"expected {call.criterion}, which penalty {penalty.name!r} replaces, to return the mean of the examples' "
            f"losses, {mean.item():.6g}, found {call.loss.item():.6g}: it sums them, weights classes or ignores some "
            f"examples; use a penalty that is added, such as 'trades' or 'curvature'"
        )
