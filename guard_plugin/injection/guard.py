"""The guard: it decides which loss calls are on real data, adds the penalty to them, and keeps the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakSet

import torch
from torch import Tensor, nn

from guard_plugin.errors import GuardError, NothingGuarded, UnsupportedLoss
from guard_plugin.hosts.profile import ExpectedCount
from guard_plugin.injection.account.ledger import OUTSIDE, Ledger
from guard_plugin.injection.account.verdict import expected_calls, problem_of
from guard_plugin.injection.calls.compiled_functions import COMPILE_NETWORK
from guard_plugin.injection.calls.loss_call import LossCall
from guard_plugin.injection.calls.network_outputs import Origin
from guard_plugin.injection.calls.origins import Origins
from guard_plugin.injection.calls.real_data import (
    EVALUATION,
    LEARNED,
    PART_OF_LEARNED,
    UNDECIDED,
    is_part_of_learned,
    is_trained,
    refuse_features,
    why_not_real,
    why_not_real_batch,
)
from guard_plugin.injection.calls.stack import OUTSIDE_SEAMS, Place, StackReader
from guard_plugin.injection.guarded_loss import guarded_loss
from guard_plugin.injection.paths import Paths
from guard_plugin.injection.penalty_choice import ChosenPenalty, in_pixels
from guard_plugin.penalties import Penalty
from guard_plugin.penalties.fast.shared_forward import SharedForward
from guard_plugin.penalties.lagging_statistics import why_lagging

__all__ = ["Guard"]


def _error_of(call: LossCall) -> UnsupportedLoss | None:
    """Return the error of a criterion that has no form per example, or None."""
    try:
        call.criterion_fn()
    except UnsupportedLoss as error:
        return error.with_traceback(None)  # whose frames hold the loss, and so its graph, which will hold the error
    return None


def _trained_in_evaluation(origin: Origin) -> UnsupportedLoss:
    return UnsupportedLoss(
        f"expected a network that is trained on real data to be in training mode, found {origin.network_name}, called "
        f"at {origin.place}, in eval mode, in which nothing is guarded: call train() first, and put single layers into "
        f"eval mode to freeze them. {_WHAT_TO_DO}"
    )


def _trained_on_undecided(origin: Origin, reason: str) -> NothingGuarded:
    return NothingGuarded(
        f"expected each loss on real data to be a loss call that can be guarded, found that {origin.network_name}, "
        f"called at {origin.place}, is trained by another one, of which cannot be told whether it is on real data "
        f"({reason.partition(': ')[2]}). {_WHAT_TO_DO}"
    )


_WHAT_TO_DO = (
    "Left unguarded, what the script writes is no GUARD result. If this is not the loss on real data, name its "
    "function with --suspend, or say with --expect how many loss calls must be guarded"
)


@dataclass(eq=False)
class Guard:
    """Handles the loss calls of one run: ``expected`` tells, from the host's variables, how many must be guarded.

    ``real`` are the lines ("main.py:191") whose loss calls are on real data, says the user, and ``made_by`` what makes
    batches of real data, where that is to tell them apart: ``source_of`` then says what made a batch. Where nobody
    vouches for the number of guarded calls, a loss on real data that is left unguarded ends the run. ``failure`` keeps
    the error of a call that could not be guarded, for hosts that catch everything. ``enters`` is called first by each
    network call and loss call, which may be in a child process. ``tells`` shows a line to the user.
    """

    chosen: ChosenPenalty
    reader: StackReader
    expected: ExpectedCount | None
    paths: Paths
    ledger: Ledger
    real: Collection[str] = ()
    made_by: Collection[str] = ()
    source_of: Callable[[Tensor], str] | None = None
    failure: GuardError | None = None
    origins: Origins | None = None
    enters: Callable[[], None] = lambda: None
    tells: Callable[[str], None] = lambda _: None
    _looked_at: WeakSet[nn.Module] = field(default_factory=WeakSet, init=False, repr=False)

    @property
    def penalty(self) -> Penalty:
        """The penalty, as it is for inputs of its reference."""
        return self.chosen.penalty

    def __call__(self, call: LossCall) -> Tensor:
        """Return the loss that the host gets; raise GuardError if it must be guarded and cannot, or is one too many."""
        self.enters()
        with self._failing():
            place = self.reader.read()
            return self._handle(replace(call, place=place), place)

    def begins(self, origin: Origin) -> None:
        """Note where a network is called, if its output may have to be guarded."""
        network = origin.network
        self.enters()
        if self.ledger.unguarded or not torch.is_grad_enabled() or not is_trained(network):
            return
        place = self.reader.read()
        if not place.why_unguarded or self._may_belong_to_another_thread(place.why_unguarded):
            origin.place = place.site or OUTSIDE

    def share_forward(self, origin: Origin) -> SharedForward | str:
        """Share the forward pass of a network's call, or say why not; its loss may yet turn out not to be guarded."""
        if origin.kwargs:
            return "its input is not one tensor of floating point"
        penalty = self.penalty.at(self.ledger.position)
        return self.paths.share_forward(
            penalty, origin.network, origin.args, lambda: origin.training and origin.place is not None
        )

    def trained_on(self, origin: Origin) -> Callable[[], None] | None:
        """Say what to do if gradients flow to a network from no loss that was guarded; None if not on real data."""
        with self._failing():
            if self.origins is None:
                return None
            why: GuardError | None = None if origin.training else _trained_in_evaluation(origin)
            try:
                reason = why_not_real_batch(origin.batch(), self.origins)
                if reason is not None:
                    if not self._must_be_told(reason):
                        return None
                    why = _trained_on_undecided(origin, reason)
            except UnsupportedLoss as error:  # it cannot be told what the batch was
                why = error
            return partial(self._trained_on_another, origin, origin.network_name, why)

    def _trained_on_another(self, origin: Origin, network: str, why: GuardError | None) -> None:
        """Note, or refuse, that a network on real data is trained by a loss that was not guarded."""
        with self._failing():
            if not origin.unsupported:
                how = "that is not seen" if origin.training else "in eval mode"
                self.ledger.note_unguarded(origin.place, f"loss on {network} {how}")
            counted_by_user = self.expected is None and self.ledger.expected is not None
            if origin.unsupported and not counted_by_user:
                raise origin.unsupported[0]
            if self._is_counted:
                return
            raise why or NothingGuarded(
                f"expected each loss on real data to be a loss call that can be guarded (cross_entropy, nll_loss or "
                f"their modules), found that {network}, called at {origin.place}, is trained by "
                f"another one (written by hand, in its own forward, or in a compiled function). {_WHAT_TO_DO}"
            )

    def compiled_loss(self, function: str, loss: Tensor) -> None:
        """Watch a scalar that a compiled function returned under an open seam: trained on, it is a loss not seen."""
        place = self.reader.read()
        site = place.site  # the place has frames, which a hook would keep alive, and they the loss
        if not self.ledger.unguarded and not place.why_unguarded:
            loss.grad_fn.register_hook(lambda *_: self._trained_on_compiled(function, site))  # type: ignore[union-attr]

    def _trained_on_compiled(self, function: str, site: str | None) -> None:
        with self._failing():
            self.ledger.note_unguarded(site, f"loss in compiled {function}")
            if not self._is_counted:
                raise NothingGuarded(
                    f"expected to see each loss on real data, found that {function}, which torch.compile compiled, "
                    f"returned one at {site or OUTSIDE}, inside of which nothing can be guarded: {COMPILE_NETWORK}. "
                    f"{_WHAT_TO_DO}"
                )

    @property
    def _is_counted(self) -> bool:
        return self.expected is not None or self.ledger.expected is not None

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Keep an error, for hosts that catch everything."""
        try:
            yield
        except GuardError as error:
            self.failure = self.failure or error
            raise

    def last_failure(self) -> GuardError | None:
        """Return the error of a call that could not be guarded, the last call of each network included; or None."""
        if self.origins is not None:
            with contextlib.suppress(GuardError):  # which is kept
                self.origins.judge()
        return self.failure

    def problem(self) -> GuardError | None:
        """Return what is wrong with a run whose script ended well: a failed call, or what its ledger tells."""
        return self.last_failure() or problem_of(self.ledger, self.penalty, self.expected, self.real)

    def _handle(self, call: LossCall, place: Place) -> Tensor:
        error = _error_of(call)
        if error is not None:
            return self._leave_unsupported(call, place, error)
        self.ledger.note_seen(place.site, place.seams)
        if self.expected is not None and self.ledger.expected is None:
            variables = place.locals_of(self.expected.seam)
            self.ledger.expected = None if variables is None else self.expected.compute(variables)
            self.ledger.expected_here = self.ledger.expected if place.is_own(self.expected.seam) else None
        reason = self._why_skipped(call, place)
        if reason is not None:
            self.ledger.note_skipped(place.site, reason)
            if reason != EVALUATION:  # in which a network is looked at, and not trained
                call.settle_by(call.loss)
            self._refuse_undecided(call, place, reason)
            self._refuse_in_thread(call, place, reason)
            return call.loss
        call.check_guardable()
        fitted = self._fitted(call.inputs.shape[1:])
        if self.penalty.strength == 0:
            loss, value = call.loss, None
            call.settle_by(loss)
        else:
            self._note_lagging(call.network)
            penalty = fitted.at(self.ledger.position)
            loss, value = guarded_loss(call, penalty, self.paths)
            self.ledger.reached = {name: getattr(penalty, name) for name in self.penalty.ramps()}
        self.ledger.note_guarded(place.site, value, call.loss)
        if self.ledger.expected is not None and self.ledger.guarded > self.ledger.expected:
            raise NothingGuarded(
                f"expected {expected_calls(self.ledger, self.expected)}, found one more at {place.site}: something "
                f"that is not the loss on real data looks like it; guard this fork with an adapter of its own"
            )
        return loss

    def _fitted(self, shape: torch.Size) -> Penalty:
        """Return the penalty for inputs of this shape; say, once, what it is, and note an h that follows the shape."""
        penalty = self.chosen.for_inputs(shape)
        follows = self.chosen.reference is not None
        is_new = self.ledger.note_h(in_pixels(shape), penalty.settings()["h"]) if follows else not self.ledger.guarded
        if is_new:
            self.tells(self.chosen.in_words(shape))
        return penalty

    def _note_lagging(self, network: nn.Module) -> None:
        """Warn, once, of a network whose evaluation lags behind its training."""
        if not self.ledger.lagging and network not in self._looked_at:
            self._looked_at.add(network)
            self.ledger.lagging = why_lagging(network, self.penalty)
            if self.ledger.lagging:
                self.tells(f"warning: {self.ledger.lagging}")

    def _refuse_undecided(self, call: LossCall, place: Place, reason: str) -> None:
        """Refuse a call of which cannot be told whether it is on real data, where nobody vouches for the number."""
        if reason == LEARNED and is_part_of_learned(call.inputs):
            reason = PART_OF_LEARNED
        if self._must_be_told(reason):
            raise NothingGuarded(
                f"expected each loss call under an open seam to be on real data or not, found that it is {reason} at "
                f"{place.site}. {_WHAT_TO_DO}; or name the lines whose loss is on real data: --real {place.site}, if "
                f"it is this one (the others then are not)"
            )

    def _must_be_told(self, reason: str) -> bool:
        """Whether it cannot be told if a batch is real data, and nobody vouches for it: by a number, or by lines."""
        return reason.startswith(UNDECIDED) and not (self._is_counted or self.real)

    def _refuse_in_thread(self, call: LossCall, place: Place, reason: str) -> None:
        """Refuse training in a thread that has no seam of its own, while another thread stands under an open one."""
        seam = self._may_belong_to_another_thread(reason)
        if seam and why_not_real(call) is None:
            raise NothingGuarded(
                f"expected training on real data to be under a seam of its own thread, found a loss call at "
                f"{place.site or OUTSIDE} in a thread that {seam} may have started, and no seam in it: name the "
                f"function that the thread runs with --guard. {_WHAT_TO_DO}"
            )

    def _may_belong_to_another_thread(self, reason: str) -> str:
        """Return the open seam of a thread that may have started this one, which has none; or an empty text."""
        if self._is_counted or self.ledger.unguarded or reason != OUTSIDE_SEAMS:
            return ""
        return self.reader.open_in_another_thread() or ""

    def _leave_unsupported(self, call: LossCall, place: Place, error: UnsupportedLoss) -> Tensor:
        """Leave a loss that has no form per example as it is; it is an error if gradients flow from it alone."""
        if place.why_unguarded:
            return call.loss
        reason = why_not_real(call)
        if reason is None or self._must_be_told(reason):
            self.ledger.note_unguarded(place.site, call.criterion)
            call.made_by.unsupported.append(error)
        return call.loss

    def _why_skipped(self, call: LossCall, place: Place) -> str | None:
        if place.why_unguarded:
            return place.why_unguarded
        source = "not known" if self.source_of is None or call.made is None else self.source_of(call.inputs)
        verdict: bool | None = self.paths.hooks.is_real_data(call=call, place=place, source=source)
        if verdict is None and place.site in self.real:
            verdict = True
        if verdict is not None:
            if verdict:
                refuse_features(call)
            return None if verdict else "not real data, says a plugin"
        reason = why_not_real(call)
        return f"batch made by {source}" if reason is None and self.made_by and source not in self.made_by else reason
