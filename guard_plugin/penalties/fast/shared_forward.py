"""A host's network call whose forward pass the penalty shares: it serves as one of the penalty's own passes."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.penalties.fast.precomputed import version_of
from guard_plugin.penalties.fast.second_order import SecondOrder
from guard_plugin.penalties.graph import Mark
from guard_plugin.penalties.pass_watch import KeptTensors, PassWatch
from guard_plugin.penalties.undisturbed import normalises_by_batch, random_state

__all__ = ["SharedForward", "host_tensor", "inside_shared_forward"]


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
        batch_statistics: Whether BatchNorm normalises the penalty's other passes by their batches too.
    """

    def __init__(self, source: Tensor, network: nn.Module, *, twice: bool, batch_statistics: bool = False) -> None:
        self.mark = Mark()
        self.source = source
        self.batch = source.detach().requires_grad_()
        self.operations = SecondOrder(self.batch)
        self.disturbance = ""
        self.input: Tensor | None = self.batch.clone()  # in-place operations would not survive on a leaf
        self.input._guard_source = source  # type: ignore[attr-defined]
        self._kept = KeptTensors(network)
        self._buffers = [
            (name, buffer, version_of(buffer))
            for module in network.modules()
            if not (batch_statistics and normalises_by_batch(module))
            for name, buffer in module.named_buffers(recurse=False)
        ]
        self._random = random_state(source.device)
        self._watch = PassWatch(source.device)
        self._modes = ExitStack()
        self._modes.enter_context(self._watch)
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
        return self._watch.seen or self._kept.why()


def host_tensor(argument: Any) -> Any:
    """Return the host's own tensor for one that a network was given in its place, and anything else as it is."""
    return getattr(argument, "_guard_source", argument) if isinstance(argument, Tensor) else argument
