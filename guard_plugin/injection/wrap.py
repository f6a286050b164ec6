"""Guarding one criterion of any training script, in one line."""

from __future__ import annotations

import contextlib
import copy
import warnings
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss, UnusableInput
from guard_plugin.injection.calls.loss_call import LossCall, judged_and_targets, per_example
from guard_plugin.injection.calls.network_outputs import Origin
from guard_plugin.injection.calls.origins import Origins
from guard_plugin.injection.calls.real_data import EVALUATION, UNDECIDED, why_not_real, why_not_real_batch
from guard_plugin.injection.guarded_loss import guarded_loss
from guard_plugin.injection.paths import Paths
from guard_plugin.injection.penalty_choice import choose_penalty
from guard_plugin.penalties import LossFunction
from guard_plugin.penalties.checks import check_network
from guard_plugin.penalties.fast.shared_forward import SharedForward
from guard_plugin.penalties.lagging_statistics import why_lagging
from guard_plugin.plugins import installed_plugins

__all__ = ["GuardedCriterion", "wrap"]


class GuardedCriterion(nn.Module):
    """A criterion that gives the loss on what a network returned for real data, in training, the penalty.

    Made by :func:`wrap`. Called in evaluation (network in eval mode, gradients off) or on inputs that require grad,
    it returns the criterion's own loss. ``guarded`` counts the calls that received the penalty, and ``paths``
    counts the ways that they took to compute it. It has the criterion's attributes and state dict. A copy guards the
    same network, or the network's copy where that was copied before in the same ``deepcopy``.
    """

    def __init__(
        self, criterion: Callable[..., Tensor], model: nn.Module, options: dict[str, Any], loss_fn: LossFunction | None
    ) -> None:
        super().__init__()
        if isinstance(criterion, GuardedCriterion):
            raise UnusableInput("expected a criterion, found one that is wrapped already: wrap it once")
        check_network(model)
        if not callable(criterion) or not (loss_fn is None or callable(loss_fn)):
            raise UnusableInput(
                f"expected criterion and loss_fn to be functions or modules, got {type(criterion).__name__} and "
                f"{type(loss_fn).__name__}"
            )
        self.criterion = criterion
        self.guarded = 0
        self._made_with = (model, dict(options), loss_fn)
        plugins = installed_plugins()
        self._paths = Paths(plugins.hook, options)
        self.paths = self._paths.counts
        self._penalty = choose_penalty(plugins, None, options).penalty
        self._paths.check(self._penalty)
        self._per_example()
        # The reference is weak: what watches the network must not keep the criterion alive, with which it ends.
        watching = _Watching(weakref.ref(self))
        self._origins = Origins(
            network=model,
            begins=watching.begins,
            share_forward=watching.share_forward if self._penalty.strength else None,
            trained_on=watching.trained_on,
        )
        self._finalizer = weakref.finalize(self, self._origins.remove)
        self._register_load_state_dict_pre_hook(_rename_keys)  # type: ignore[no-untyped-call] # a checkpoint holds the criterion's own names

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the criterion's loss, with the penalty where it is due.

        Args:
            *args: What the criterion gets: first what the model returned, shape (n, ...), and the targets, length n;
                or these as ``input`` and ``target``, as torch names them. Others that are no tensors reach the
                criterion as they are.
            **kwargs: See above.

        Raises:
            UnsupportedLoss: If gradients flow to the first argument but the model did not return it, or the penalty is
                due and a third argument is a tensor, of which ``loss_fn`` would not know.
        """
        loss = self.criterion(*args, **kwargs)
        if not isinstance(loss, Tensor):
            raise UnsupportedLoss(
                f"expected the criterion to return one tensor, the loss, got {type(loss).__name__}; wrap one that does"
            )
        if not self._finalizer.alive:
            return loss
        judged, targets = judged_and_targets(args, kwargs)
        if not isinstance(judged, Tensor):
            raise UnsupportedLoss(
                f"expected the criterion to be called on one tensor, got {type(judged).__name__}; call it on the "
                f"tensor that the network returned"
            )
        with self._origins.paused():
            made, derivation = self._origins.of(judged, search=True)
            # Not self: a plugin that keeps the call must not keep the criterion, with whose end the watch ends.
            loss_fn, name = self._per_example(), type(self.criterion).__name__
            call = LossCall(name, loss, judged, targets, made, derivation, lambda: loss_fn, self._origins)
            reason = why_not_real(call)
            if reason is not None:
                if reason.startswith(UNDECIDED):
                    warnings.warn(f"left without the penalty, as it may be synthetic: {reason}", stacklevel=2)
                if reason != EVALUATION:  # in which a network is looked at, and not trained
                    call.settle_by(loss)
                return loss
            call.check_guardable()
            _check_given(args, kwargs)
            penalty = self._penalty.at(self.guarded)
            self.guarded += 1
            if penalty.strength != 0:
                if self.guarded == 1 and (lagging := why_lagging(call.network, penalty)):
                    warnings.warn(lagging, stacklevel=2)
                return guarded_loss(call, penalty, self._paths)[0]
            call.settle_by(loss)
            return loss

    def unwrap(self) -> None:
        """Watch the network no longer; the criterion then returns its own loss. Happens by itself at its end."""
        self._finalizer()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the criterion's own state dict, as it would be without the wrapper."""
        return self.criterion.state_dict(*args, **kwargs) if isinstance(self.criterion, nn.Module) else {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "criterion" not in {**vars(self), **vars(self).get("_modules", {})}:
                raise
            return getattr(self.criterion, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_criterions(name):
            setattr(self.criterion, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_criterions(name):
            delattr(self.criterion, name)
        else:
            super().__delattr__(name)

    def _is_criterions(self, name: str) -> bool:
        """Tell an attribute that the criterion has and the wrapper, once it is made, does not."""
        if "_finalizer" not in vars(self):
            return False
        own = name in vars(self) or hasattr(type(self), name) or name in self._modules
        return not own and hasattr(self.criterion, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rewrap, (self.criterion, *self._made_with, self.guarded)

    def __deepcopy__(self, memo: dict[int, Any]) -> GuardedCriterion:
        model, options, loss_fn = self._made_with
        return _rewrap(copy.deepcopy(self.criterion, memo), memo.get(id(model), model), options, loss_fn, self.guarded)

    def _per_example(self) -> LossFunction:
        """Return the criterion per example, with the settings that it has now."""
        loss_fn: LossFunction | None = self._made_with[2]
        return loss_fn or per_example(self.criterion)


def _check_given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a further tensor, such as a teacher's logits: which of them ``loss_fn`` should judge by is not known."""
    given = sum(isinstance(value, Tensor) for value in (*args, *kwargs.values()))
    if given > 2:
        raise UnsupportedLoss(
            f"expected the criterion to be called on outputs and targets, which its loss_fn gets, found {given} "
            f"tensors: wrap the loss of the outputs and the targets alone, and add what the others are for to what it "
            f"returns"
        )


class _Watching:
    """What is done around the calls of a network, for a criterion that may have come to its end."""

    def __init__(self, criterion: weakref.ref[GuardedCriterion]) -> None:
        self._criterion = criterion
        self._warned = False

    def begins(self, origin: Origin) -> None:
        """Watch the output of a call that may be one in training."""
        if not self._warned:
            origin.place = "training" if origin.training else "evaluation"

    def share_forward(self, origin: Origin) -> SharedForward | str:
        """Share the forward pass of a call."""
        alive = self._criterion()
        if alive is None or origin.kwargs:
            return "not guarded"
        return alive._paths.share_forward(
            alive._penalty.at(alive.guarded), origin.network, origin.args, lambda: origin.training
        )

    def trained_on(self, origin: Origin) -> Callable[[], None] | None:
        """Return what warns, once, of gradients on real data from a loss that is not the criterion's."""
        alive = self._criterion()
        if alive is None or self._warned:
            return None
        with contextlib.suppress(UnsupportedLoss):  # where it cannot be told what the batch was, the warning is due
            if why_not_real_batch(origin.batch(), alive._origins) is not None:
                return None
        where = (
            "on a loss that guard_plugin.wrap does not guard: call the wrapped criterion on its output in place of the "
            "plain one"
            if origin.training
            else "in eval mode, in which guard_plugin.wrap guards nothing: call train() on it first"
        )
        return partial(self._warn, f"{origin.network_name} was trained (backward() reached its output) {where}")

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(message, stacklevel=2)


def _rewrap(
    criterion: Any, model: nn.Module, options: dict[str, Any], loss_fn: LossFunction | None, guarded: int
) -> GuardedCriterion:
    wrapped = GuardedCriterion(criterion, model, dict(options), loss_fn)
    wrapped.guarded = guarded
    return wrapped


def _rename_keys(state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(f"{prefix}criterion.")]:
        state[f"{prefix}criterion.{key[len(prefix) :]}"] = state.pop(key)


def wrap(
    criterion: Callable[..., Tensor], model: nn.Module, *, loss_fn: LossFunction | None = None, **options: Any
) -> GuardedCriterion:
    """Wrap a criterion so that losses on real data carry the penalty.

    ::

        criterion = guard_plugin.wrap(criterion, model, strength=1.0, h=0.5)
        loss = criterion(model(images), labels)

    Args:
        criterion: ``nn.CrossEntropyLoss``, ``nn.NLLLoss``, or any callable from outputs and targets to a scalar, then
            with ``loss_fn``.
        model: The network whose outputs it judges; it may come from ``torch.compile``. Neither is modified.
        loss_fn: The criterion per example, shape (n,); by default read off the criterion.
        **options: ``strength`` and ``h`` (both needed), ``form`` ("gradient" or "loss"), ``h_ramp``,
            ``strength_ramp``, ``batch_statistics``; or ``penalty``, the name of another, with its settings
            (docs/penalty.md). Further ``memory`` ("normal" or "low") and ``path`` ("auto", "shared", "separate" or
            "reference"; docs/performance.md).

    Raises:
        GuardError: If a setting does not fit, the criterion needs a ``loss_fn``, or is wrapped already.
    """
    return GuardedCriterion(criterion, model, options, loss_fn)
