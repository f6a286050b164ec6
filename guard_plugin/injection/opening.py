"""A host's network call that is opened to the penalty: its own forward pass then serves as one of the penalty's."""

import random
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from guard_plugin.penalties.second_order import SecondOrder

__all__ = ["Opening", "random_state"]


class Opening:
    """One network call, from its beginning to its end.

    Args:
        source: The host's batch.
        network: The network that is called.
        twice: Whether input gradients will be differentiated again.
    """

    def __init__(self, source: Tensor, network: nn.Module, *, twice: bool) -> None:
        self.source = source
        self.batch = source.detach().requires_grad_()
        self.given = self.batch.clone()  # what the network gets: in-place operations would not survive on a leaf
        self.operations = SecondOrder(self.batch)
        self._twice = twice
        self.disturbance = ""
        self._buffers = [(name, buffer, buffer._version) for name, buffer in network.named_buffers()]
        self._random = random_state(source.device)
        if twice:
            self.operations.__enter__()

    def close(self) -> None:
        """End it, and note why the pass was not one that evaluation would make again, if so."""
        if self._twice:
            self.operations.__exit__(None, None, None)
        if self.given._version:
            with torch.no_grad():
                self.source.copy_(self.given)  # as in the plain run; the guard then refuses the batch
        changed = [name for name, buffer, version in self._buffers if buffer._version != version]
        if changed:
            self.disturbance = f"its forward pass changes buffers ({changed[0]})"
        elif random_state(self.source.device) != self._random:
            self.disturbance = "its forward pass draws random numbers"


def random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of every random stream that a network may draw from, to be compared."""
    on_device = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    return (
        torch.get_rng_state().numpy().tobytes(),
        on_device,
        numpy.random.get_state()[1].tobytes(),  # type: ignore[index]
        numpy.random.get_state()[2],  # type: ignore[index]
        random.getstate(),
    )
