"""What a pass does that tells a tensor which requires grad from one that does not, or one derivative from two."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.penalties.attributes import held
from guard_plugin.penalties.passes import normalises_one_example
from guard_plugin.versions import TensorBase, TorchFunctionMode, is_autocast_enabled, untraced

__all__ = ["KeptTensors", "PassWatch"]

_HOOKS = (Tensor.register_hook, Tensor.retain_grad)
_QUESTIONS = tuple(vars(TensorBase)[name].__get__ for name in ("requires_grad", "is_leaf", "grad_fn"))


class PassWatch(TorchFunctionMode):
    """Notes, as ``seen``, why another pass cannot stand for this one (before torch 2.1, where none does, nothing).

    The penalty's backward passes would run hooks on tensors, the host's would not; and code that asks whether a tensor
    requires grad would be told another thing than in the plain run. Under autocast, which a forward may enter, it would
    be of less precision; the penalty's own passes have none.

    Args:
        device: Where the network's inputs are.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.seen = ""
        self._device_type = device.type

    @untraced
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: "dict[str, Any] | None" = None
    ) -> Any:
        """Note what is called, and call it."""
        if func in _HOOKS:
            self.seen = "its forward pass puts hooks on tensors"
        elif normalises_one_example(func, args) and not args[0].is_cuda:  # as passes._ExactNorms would mend it
            self.seen = "torch's gradient of its normalisation of one example may be wrong on a CPU"
        elif func in _QUESTIONS and not _module_that_asks().startswith(("torch.", "guard_plugin.")):
            self.seen = "its forward pass asks whether a tensor requires grad"
        elif is_autocast_enabled(self._device_type):
            self.seen = "its forward pass switches autocast on"
        return func(*args, **(kwargs or {}))


def _module_that_asks() -> str:
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") in (__name__, untraced.__module__) and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


class KeptTensors:
    """Tells which tensors a pass, from creation on, leaves in attributes of a network's modules.

    The host may look at the gradient of such a tensor, or take it for one without. The weights that torch's
    parametrizations compute in each pass are none of the host's business.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = list(network.modules())
        self._before = _tensors(self._modules)

    def why(self) -> str:
        """Name a module that keeps a tensor of the pass; an empty text if there is none."""
        if _tensors(self._modules).keys() <= self._before.keys():
            return ""
        keeping = [one for one in self._modules if not _tensors([one]).keys() <= self._before.keys()]
        return f"{type(keeping[0]).__name__} keeps a tensor of its forward pass"


def _tensors(modules: list[nn.Module]) -> dict[int, Tensor]:
    return {id(one): one for one in held(modules) if isinstance(one, Tensor)}
