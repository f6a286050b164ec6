"""A host's network call whose forward pass the penalty shares: it serves as one of the penalty's own passes."""

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from guard_plugin.penalties.fast.precomputed import version_of
from guard_plugin.penalties.fast.second_order import SecondOrder

__all__ = ["SharedForward", "host_tensor", "inside_shared_forward", "random_state"]


_thread = threading.local()


def inside_shared_forward() -> bool:
    """Tell whether a shared forward pass is under way in this thread."""
    return getattr(_thread, "inside", False)


class SharedForward:
    """One network call, from its beginning to its end.

    Its ``input`` is what the network gets in place of the host's batch; None once the call has ended.

    Args:
        source: The host's batch.
        network: The network that is called.
        twice: Whether input gradients will be differentiated again.
    """

    def __init__(self, source: Tensor, network: nn.Module, *, twice: bool) -> None:
        self.source = source
        self.batch = source.detach().requires_grad_()
        self.operations = SecondOrder(self.batch)
        self.disturbance = ""
        self.input: Tensor | None = self.batch.clone()  # in-place operations would not survive on a leaf
        self.input._guard_source = source  # type: ignore[attr-defined]
        self._buffers = [(name, buffer, version_of(buffer)) for name, buffer in network.named_buffers()]
        self._random = random_state(source.device)
        self._hooks = _HookWatch()
        self._modes = ExitStack()
        self._modes.enter_context(self._hooks)
        if twice:
            self._modes.enter_context(self.operations)
        _thread.inside = True

    def close(self) -> None:
        """End the call, and note as ``disturbance`` why evaluation would make another pass; safe to call twice."""
        given, self.input = self.input, None
        if given is None:
            return
        _thread.inside = False
        self._modes.close()
        if given._version:
            with torch.no_grad():
                self.source.copy_(given)  # as in the plain run; the guard then refuses the batch
        self.disturbance = self._find_disturbance()

    def _find_disturbance(self) -> str:
        changed = [name for name, buffer, version in self._buffers if version_of(buffer) != version]
        if changed:
            return f"its forward pass changes buffers ({changed[0]})"
        if random_state(self.source.device) != self._random:
            return "its forward pass draws random numbers"
        return "its forward pass puts hooks on tensors" if self._hooks.seen else ""


class _HookWatch(TorchFunctionMode):
    """Notes hooks that are put on tensors: the penalty's backward passes would run them, the host's would not."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen = self.seen or func in (Tensor.register_hook, Tensor.retain_grad)
        return func(*args, **(kwargs or {}))


def host_tensor(argument: Any) -> Any:
    """Return the host's own tensor for one that a network was given in its place, and anything else as it is."""
    return getattr(argument, "_guard_source", argument) if isinstance(argument, Tensor) else argument


def random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of every random stream that a network may draw from, to be compared."""
    on_device = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    numpys = numpy.random.get_state(legacy=False)["state"]
    keys, position = numpys["key"].tobytes(), numpys["pos"]
    return torch.get_rng_state().numpy().tobytes(), on_device, keys, position, random.getstate()
