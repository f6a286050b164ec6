"""The tap: it sees each loss call of the process, and may replace what the call returns."""

import functools
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from guard_plugin.injection.loss_call import SUPPORTED, LossCall, per_example
from guard_plugin.injection.origins import ForwardSharer, Origins
from guard_plugin.penalties import LossFunction

__all__ = ["Tap"]

# The functions that a host may call in place of a criterion module, and the module with the same settings.
_FUNCTIONS: Mapping[str, type[nn.Module]] = {"cross_entropy": nn.CrossEntropyLoss, "nll_loss": nn.NLLLoss}


class Tap:
    """Shows every loss call of the process to a handler, from creation until :meth:`remove`.

    A loss call is an outermost call of a criterion module, or of ``torch.nn.functional.cross_entropy`` or
    ``nll_loss``. Those two names are replaced while the tap is on, and restored by :meth:`remove`. The handler returns
    the loss that the host gets; its own module calls pass unseen.
    """

    def __init__(self, handler: Callable[[LossCall], Tensor], share_forward: ForwardSharer | None = None) -> None:
        self._handler = handler
        self._originals = {name: getattr(functional, name) for name in _FUNCTIONS}
        self._origins = Origins(observer=self._observe, share_forward=share_forward)
        for name, original in self._originals.items():
            setattr(functional, name, self._tapped(name, original))

    def remove(self) -> None:
        """Restore every hook and name; safe to call twice."""
        self._origins.remove()
        for name, original in self._originals.items():
            setattr(functional, name, original)
        self._originals = {}

    def _observe(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> Tensor | None:
        judged, targets = _arguments(args, kwargs)
        if not isinstance(judged, Tensor) or not isinstance(output, Tensor):
            return None
        if not isinstance(module, SUPPORTED) and not self._is_another_criterion(module, judged, targets, output):
            return None
        return self._handled(type(module).__name__, output, judged, targets, lambda: per_example(module))

    def _is_another_criterion(self, module: nn.Module, judged: Tensor, targets: Any, output: Tensor) -> bool:
        """Tell another criterion: it turns a network's own output and targets into a loss, and learns nothing."""
        if targets is None or self._origins.of(judged) is None:  # in this order: the second one takes longer
            return False
        return isinstance(module, _Loss) or (output.dim() == 0 and next(module.parameters(), None) is None)

    def _tapped(self, name: str, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(original)
        def tapped(*args: Any, **kwargs: Any) -> Tensor:
            loss = original(*args, **kwargs)
            # A host may have bound this function by name, and call it when the tap is gone.
            if not self._originals or not self._origins.idle:
                return loss
            judged, targets = _arguments(args, kwargs)
            given = signature(original).bind(*args, **kwargs).arguments
            settings = {key: value for key, value in given.items() if key not in ("input", "target")}
            return self._handled(
                f"functional.{name}", loss, judged, targets, lambda: per_example(_FUNCTIONS[name](**settings))
            )

        tapped.__prepare_scriptable__ = lambda: original  # type: ignore[attr-defined] # what torch.jit.script compiles
        return tapped

    def _handled(
        self, criterion: str, loss: Tensor, judged: Tensor, targets: Any, loss_fn: Callable[[], LossFunction]
    ) -> Tensor:
        origin, paused = self._origins.of(judged), self._origins.paused
        with paused():
            return self._handler(LossCall(criterion, loss, judged, targets, origin, functools.cache(loss_fn), paused))


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    judged = args[0] if args else kwargs.get("input")
    targets = args[1] if len(args) > 1 else kwargs.get("target")
    return judged, targets
