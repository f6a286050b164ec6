"""The tap: it sees each loss call of the process, and may replace what the call returns."""

import functools
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.calls.loss_call import SUPPORTED, LossCall, judged_and_targets, per_example
from guard_plugin.injection.calls.module_calls import uncompiled
from guard_plugin.injection.calls.network_outputs import Origin
from guard_plugin.injection.calls.origins import ForwardSharer, Origins, TrainingObserver
from guard_plugin.penalties import LossFunction
from guard_plugin.versions import is_compiling, untraced

__all__ = ["Tap"]

# The functions that a host may call in place of a criterion module, and the module with the same settings. Of those
# without one, no loss per example is known: they are seen so that they can be named.
_FUNCTIONS: "Mapping[str, type[nn.Module] | None]" = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll_loss": nn.NLLLoss,
    **dict.fromkeys(
        (
            "kl_div",
            "mse_loss",
            "l1_loss",
            "smooth_l1_loss",
            "huber_loss",
            "binary_cross_entropy",
            "binary_cross_entropy_with_logits",
            "multi_margin_loss",
            "soft_margin_loss",
            "multilabel_soft_margin_loss",
        )
    ),
}


class Tap:
    """Shows every loss call of the process to a handler, from creation until :meth:`remove`.

    A loss call is an outermost call of a criterion module, or of a loss function of ``torch.nn.functional``. Those
    names are replaced while the tap is on, and restored by :meth:`remove`. The handler returns the loss that the host
    gets; its own module calls pass unseen. The other arguments are those of :class:`Origins`.
    """

    def __init__(
        self,
        handler: Callable[[LossCall], Tensor],
        *,
        begins: "Callable[[Origin], None] | None" = None,
        share_forward: "ForwardSharer | None" = None,
        trained_on: "TrainingObserver | None" = None,
    ) -> None:
        self._handler = handler
        self._originals = {name: getattr(functional, name) for name in _FUNCTIONS if hasattr(functional, name)}
        self.origins = Origins(
            observer=self._observe, begins=begins, share_forward=share_forward, trained_on=trained_on
        )
        for name, original in self._originals.items():
            setattr(functional, name, self._tapped(name, original))

    def remove(self) -> None:
        """Restore every hook and name; safe to call twice."""
        self.origins.remove()
        for name, original in self._originals.items():
            setattr(functional, name, original)
        self._originals = {}

    def _observe(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> "Tensor | None":
        judged, targets = judged_and_targets(args, kwargs)
        if not isinstance(judged, Tensor) or not isinstance(output, Tensor):
            return None
        criterion = uncompiled(module)
        known = isinstance(criterion, SUPPORTED)
        if not known and not self._is_another_criterion(criterion, judged, targets, output):
            return None
        return self._handled(type(criterion).__name__, output, judged, targets, lambda: per_example(criterion), known)

    def _is_another_criterion(self, module: nn.Module, judged: Tensor, targets: Any, output: Tensor) -> bool:
        """Tell another criterion: it turns a network's own output and targets into a loss, and learns nothing."""
        if targets is None or self.origins.of(judged)[0] is None:  # in this order: the second one takes longer
            return False
        if isinstance(module, _Loss):
            return True
        # A metric, which gradients do not flow to, is none.
        return output.dim() == 0 and output.requires_grad and next(module.parameters(), None) is None

    def _tapped(self, name: str, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        kind = _FUNCTIONS[name]

        @functools.wraps(original)
        def tapped(*args: Any, **kwargs: Any) -> Tensor:
            if is_compiling():
                return original(*args, **kwargs)
            # Under a mode, as torch.set_default_device is one, torch calls a function that it was given by name again.
            with self.origins.paused():
                loss = original(*args, **kwargs)
            return seen(loss, args, kwargs)

        @untraced
        def seen(loss: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            # A host may have bound this function by name, and call it when the tap is gone.
            if not self._originals or not self.origins.idle:
                return loss
            judged, targets = judged_and_targets(args, kwargs)
            if not isinstance(judged, Tensor) or (kind is None and not judged.requires_grad):
                return loss

            def loss_fn() -> LossFunction:
                if kind is None:
                    raise UnsupportedLoss(f"functional.{name} has no form per example that is known here")
                given = signature(original).bind(*args, **kwargs).arguments
                return per_example(kind(**{key: given[key] for key in given if key not in ("input", "target")}))

            return self._handled(f"functional.{name}", loss, judged, targets, loss_fn, kind is not None)

        # What torch.jit.script compiles in its place; as texts, since a name of two underscores is a class's own.
        vars(tapped).update({"__script_if_tracing_wrapper": True, "__original_fn": original})
        return tapped

    def _handled(
        self,
        criterion: str,
        loss: Tensor,
        judged: Tensor,
        targets: Any,
        loss_fn: Callable[[], LossFunction],
        known: bool,
    ) -> Tensor:
        with self.origins.paused():
            made, derivation = self.origins.of(judged, search=known)
            if made is None and not known:
                return loss
            call = LossCall(criterion, loss, judged, targets, made, derivation, functools.cache(loss_fn), self.origins)
            return self._handler(call)
