"""The guard: it decides which loss calls are on real data, adds the penalty to them, and keeps the ledger."""

from dataclasses import dataclass
from typing import Any

import torch
from pluggy import HookRelay
from torch import Tensor, nn

from guard_plugin.errors import GuardError, NothingGuarded, UnsupportedLoss
from guard_plugin.hosts.profile import ExpectedCount
from guard_plugin.injection.ledger import Ledger
from guard_plugin.injection.loss_call import LossCall
from guard_plugin.injection.paths import Paths
from guard_plugin.injection.stack import Place, StackReader
from guard_plugin.penalties import Penalty
from guard_plugin.penalties.fast.shared_forward import SharedForward

__all__ = ["Guard", "guarded_loss", "why_not_real"]


def why_not_real(call: LossCall) -> str | None:
    """Say why a loss call is not one on real data in training; None where it is.

    Real data in training shows in five signals, none of which suffices alone: gradients flow to the output, they are
    on where the loss is evaluated (a host may log it without), the network is in training mode,
    its input does not require grad (synthetic images do), some parameter does. Where gradients flow to the output,
    but not straight from a network, UnsupportedLoss is raised.
    """
    if not call.output.requires_grad:
        return "no gradient"
    if not torch.is_grad_enabled():
        return "gradients off"
    if not call.network.training:
        return "network in eval mode"
    if call.inputs.requires_grad:
        return "synthetic: input requires grad"
    if not any(parameter.requires_grad for parameter in call.network.parameters()):
        return "frozen network"
    return None


def guarded_loss(call: LossCall, penalty: Penalty, paths: Paths) -> tuple[Tensor, Tensor]:
    """Return the loss that the host gets, with the penalty added or in the place of the host's, and the penalty."""
    guarded = paths.guarded(call, penalty)
    loss, value = _by_graph(call, penalty, paths.hooks) if guarded is None else guarded
    paths.hooks.guarded_step(call=call, value=value.detach())
    return loss, value


def _by_graph(call: LossCall, penalty: Penalty, hooks: HookRelay) -> tuple[Tensor, Tensor]:
    if penalty.combination == "replaces":
        _refuse_other_reductions(call, penalty)
    value = hooks.compute_penalty(call=call, penalty=penalty)
    if not isinstance(value, Tensor) or value.dim() != 0 or not value.requires_grad:
        found = (
            f"shape {tuple(value.shape)}, requires_grad={value.requires_grad}" if isinstance(value, Tensor) else value
        )
        raise UnsupportedLoss(
            f"expected penalty {penalty.name!r} to be a scalar tensor through which gradients reach the network, "
            f"got {found}"
        )
    return _combined(call, value.to(call.loss.dtype), penalty), value


def _combined(call: LossCall, value: Tensor, penalty: Penalty) -> Tensor:
    if penalty.combination == "added":
        return call.loss + value
    if penalty.strength < 1:
        return (1 - penalty.strength) * call.loss + value
    # DDP may begin to exchange gradients only where they pass its own output (static_graph): pass it a zero. Not by
    # way of the host's loss, which, where it is not finite, would make it NaN.
    distributed = call.network is not call.made_by.network
    return value + (0 * torch.nan_to_num(call.output, 0.0, 0.0, 0.0)).sum() if distributed else value


def _refuse_other_reductions(call: LossCall, penalty: Penalty) -> None:
    """Refuse a loss that a mean over examples cannot stand in for: the host would be given one of another scale."""
    with torch.no_grad():
        mean = call.loss_fn()(call.output, call.targets).mean()
    if not torch.isclose(mean.double(), call.loss.double(), rtol=1e-2, atol=1e-4, equal_nan=True):
        raise UnsupportedLoss(
            f"expected {call.criterion}, which penalty {penalty.name!r} replaces, to return the mean of the examples' "
            f"losses, {mean.item():.6g}, found {call.loss.item():.6g}: it sums them, weights classes or ignores some "
            f"examples; use a penalty that is added, such as 'trades' or 'curvature'"
        )


@dataclass(eq=False, kw_only=True)
class Guard:
    """Handles the loss calls of one run: ``expected`` tells, from the host's variables, how many must be guarded.

    ``failure`` keeps the error of a call that could not be guarded, for hosts that catch everything.
    """

    penalty: Penalty
    reader: StackReader
    expected: ExpectedCount | None
    paths: Paths
    ledger: Ledger
    failure: GuardError | None = None

    def __call__(self, call: LossCall) -> Tensor:
        """Return the loss that the host gets; raise GuardError if it must be guarded and cannot, or is one too many."""
        try:
            return self._handle(call)
        except GuardError as error:
            self.failure = error
            raise

    def share_forward(self, network: nn.Module, args: tuple[Any, ...]) -> SharedForward | str:
        """Share the forward pass of a network's call, or say why not; its loss may yet turn out not to be guarded."""
        penalty = self.penalty.at(self.ledger.guarded)
        return self.paths.share_forward(penalty, network, args, lambda: not self.reader.read().why_unguarded)

    def problem(self) -> GuardError | None:
        """Say what is wrong with a run whose script ended well: nothing, one failed call, or the wrong count."""
        if self.failure is not None:
            return self.failure
        ledger = self.ledger
        if not ledger.unguarded and ledger.guarded == 0:
            return NothingGuarded(
                f"expected loss calls on real data, found that none of the {ledger.seen} loss calls seen was one: this "
                f"was a plain run. {self._where_they_went()}"
            )
        if self.expected is not None and ledger.expected is None:
            return NothingGuarded(
                f"expected loss calls under {self.expected.seam}, whose local variables tell how many there must be, "
                f"found none of the {ledger.seen} seen there: the run cannot be proved complete; guard this fork with "
                f"an adapter of its own: docs/writing-an-adapter.md"
            )
        if ledger.expected is not None and ledger.guarded != ledger.expected:
            return NothingGuarded(
                f"expected {self._expected_calls()}, found {ledger.guarded} of {ledger.seen} seen: what the script "
                f"wrote is not a GUARD result. {self._where_they_went()}"
            )
        if ledger.values.nonfinite:
            return NothingGuarded(
                f"expected finite penalties, found {ledger.values.nonfinite} of {ledger.guarded} that are not: what "
                f"the script wrote is not a GUARD result; lower strength or h"
            )
        name, calls = max(self.penalty.ramps().items(), key=lambda ramp: ramp[1], default=("", 0))
        if ledger.unguarded or self.penalty.strength == 0 or ledger.guarded >= calls:
            return None
        return NothingGuarded(
            f"expected at least {calls} guarded loss calls for the ramp, found {ledger.guarded}: {name} rose to "
            f"{ledger.reached[name]:.6g} only, not to {getattr(self.penalty, name):.6g}, and what the script "
            f"wrote is not a GUARD result; shorten the ramp"
        )

    def _handle(self, call: LossCall) -> Tensor:
        place = self.reader.read()
        self.ledger.note_seen(place.site, place.seams)
        if self.expected is not None and self.ledger.expected is None:
            variables = place.locals_of(self.expected.seam)
            self.ledger.expected = None if variables is None else self.expected.compute(variables)
        reason = self._why_skipped(call, place)
        if reason is not None:
            self.ledger.note_skipped(place.site, reason)
            return call.loss
        call.check_guardable()
        if self.penalty.strength == 0:
            loss, value = call.loss, None
        else:
            penalty = self.penalty.at(self.ledger.guarded)
            loss, value = guarded_loss(call, penalty, self.paths)
            self.ledger.reached = {name: getattr(penalty, name) for name in self.penalty.ramps()}
        self.ledger.note_guarded(place.site, value, call.loss)
        if self.ledger.expected is not None and self.ledger.guarded > self.ledger.expected:
            raise NothingGuarded(
                f"expected {self._expected_calls()}, found one more at {place.site}: something that is not the loss on "
                f"real data looks like it; guard this fork with an adapter of its own"
            )
        return loss

    def _why_skipped(self, call: LossCall, place: Place) -> str | None:
        if place.why_unguarded:
            return place.why_unguarded
        verdict: bool | None = self.paths.hooks.is_real_data(call=call)
        if verdict is not None:
            return None if verdict else "not real data, says a plugin"
        return why_not_real(call)

    def _expected_calls(self) -> str:
        why = self.expected.explanation if self.expected else "as given"
        return f"{self.ledger.expected} guarded loss calls ({why})"

    def _where_they_went(self) -> str:
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.ledger.skipped.items())
        return f"Skipped: {skipped or 'none'}; loss calls under each seam: {dict(self.ledger.under) or 'none'}"
