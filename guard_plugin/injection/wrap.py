"""Guarding one criterion of any training script, in one line."""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.guard import guarded_loss, why_not_real
from guard_plugin.injection.loss_call import LossCall, per_example
from guard_plugin.injection.origins import Origins
from guard_plugin.injection.paths import Paths
from guard_plugin.injection.penalty_choice import make_penalty
from guard_plugin.penalties import LossFunction
from guard_plugin.penalties.fast.shared_forward import SharedForward
from guard_plugin.plugins import installed_plugins

__all__ = ["GuardedCriterion", "wrap"]


class GuardedCriterion(nn.Module):
    """A criterion that gives the loss on what a network returned for real data, in training, the penalty.

    Made by :func:`wrap`. Called in evaluation (network in eval mode, gradients off) or on inputs that require grad,
    it returns the criterion's own loss. ``guarded`` counts the calls that received the penalty, and ``paths``
    counts the ways that they took to compute it.
    """

    def __init__(
        self, criterion: Callable[..., Tensor], model: nn.Module, options: dict[str, Any], loss_fn: LossFunction | None
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.guarded = 0
        plugins = installed_plugins()
        self._paths = Paths(plugins.hook, options)
        self.paths = self._paths.counts
        self._penalty = make_penalty(plugins, None, options)
        self._paths.check(self._penalty)
        self._loss_fn = loss_fn or per_example(criterion)
        # The reference is weak: the hooks must not keep the criterion alive, because they end when it ends.
        criterion_alive = weakref.ref(self)

        def share_forward(network: nn.Module, args: tuple[Any, ...]) -> SharedForward | str:
            alive = criterion_alive()
            if alive is None:
                return "not guarded"
            return alive._paths.share_forward(alive._penalty.at(alive.guarded), network, args, lambda: True)

        self._origins = Origins(network=model, share_forward=share_forward if self._penalty.strength else None)
        self._finalizer = weakref.finalize(self, self._origins.remove)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the criterion's loss, with the penalty where it is due.

        Args:
            input: What the model returned, shape (n, ...); named as torch names it.
            target: The targets, length n.

        Raises:
            UnsupportedLoss: If gradients flow to ``input`` but the model did not return it.
        """
        loss = self.criterion(input, target)
        if not self._finalizer.alive:
            return loss
        if not isinstance(input, Tensor):
            raise UnsupportedLoss(
                f"expected the criterion to be called on one tensor, got {type(input).__name__}; call it on the tensor "
                f"that the network returned"
            )
        # Not self: a plugin that keeps the call must not keep the criterion, with whose end the hooks end.
        criterion, loss_fn, origin = type(self.criterion).__name__, self._loss_fn, self._origins.of(input)
        call = LossCall(criterion, loss, input, target, origin, lambda: loss_fn, self._origins.paused)
        if why_not_real(call) is not None:
            return loss
        call.check_guardable()
        penalty = self._penalty.at(self.guarded)
        self.guarded += 1
        if penalty.strength == 0:
            return loss
        with self._origins.paused():
            return guarded_loss(call, penalty, self._paths)[0]

    def unwrap(self) -> None:
        """Take the hooks off; the criterion then returns its own loss. Happens by itself when it is discarded."""
        self._finalizer()


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
        model: The network whose outputs it judges. Neither is modified.
        loss_fn: The criterion per example, shape (n,); by default read off the criterion.
        **options: ``strength`` and ``h`` (both needed), ``form`` ("gradient" or "loss"), ``h_ramp``,
            ``strength_ramp``; or ``penalty``, the name of another, with its settings (docs/penalty.md). Further
            ``memory`` ("normal" or "low") and ``path`` ("auto", "shared", "separate" or "reference";
            docs/performance.md).

    Raises:
        GuardError: If a setting does not fit, or the criterion needs a ``loss_fn``.
    """
    return GuardedCriterion(criterion, model, options, loss_fn)
