"""A network as a host calls it: from the batch alone to the one tensor that is judged."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.calls.module_calls import uncompiled
from guard_plugin.injection.calls.network_outputs import Output, parts_of

__all__ = ["AsCalled", "as_called", "own_part"]


class AsCalled(nn.Module):
    """Calls a network with the host's other arguments, and picks the judged tensor out of what it returns."""

    def __init__(self, network: nn.Module, batch: "int | str", arguments: Mapping[Any, Any], pick: tuple[Any, ...]):
        super().__init__()
        self.network = network
        self.training = network.training
        self.call = (batch, dict(arguments), pick)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the tensor that the host judges, for another batch."""
        key, arguments, pick = self.call
        arguments = {**arguments, key: batch}
        positional = [arguments[place] for place in sorted(place for place in arguments if isinstance(place, int))]
        returned = self.network(*positional, **{k: v for k, v in arguments.items() if isinstance(k, str)})
        for one in pick:
            parts = parts_of(returned)
            if one not in parts:
                raise UnsupportedLoss(
                    f"expected {type(self.network).__name__} to return in evaluation what it returns in training, "
                    f"found a {type(returned).__name__} where the host takes {one!r} of a container: have it return "
                    f"the same in both, as torchvision's GoogLeNet and Inception do with aux_logits=False"
                )
            returned = parts[one]
        picked: Tensor = returned
        return picked

    def is_same_call(self, network: nn.Module, batch: "int | str", arguments: Mapping[Any, Any], pick: Any) -> bool:
        """Tell whether a call differs from this one in nothing but the batch."""
        key, mine, picked = self.call
        return (
            self.network is network
            and (key, picked) == (batch, pick)
            and mine.keys() == arguments.keys()
            and all(mine[name] is arguments[name] for name in mine if name != key)
        )


def as_called(output: Output, known: "deque[AsCalled]") -> nn.Module:
    """Return the network, from batches to the judged tensor; the network itself where the host calls it like that.

    ``known`` keeps the result, for the next such call: what is known of a network is known by object.
    """
    origin = output.origin
    network, batch, arguments = own_part(origin.network), origin.batch_argument(), origin.arguments
    if batch == 0 and len(arguments) == 1 and not output.pick:
        return network
    same = (one for one in known if one.is_same_call(network, batch, arguments, output.pick))
    found = next(same, None)
    if found is None:
        found = AsCalled(network, batch, {**arguments, batch: None}, output.pick)
        known.append(found)
    found.training = network.training
    return found


def own_part(network: nn.Module) -> nn.Module:
    """Return what a pass shall go through: a network inside DistributedDataParallel, and before torch.compile.

    A pass through the former would prepare another gradient exchange, and synchronise buffers unasked; what the latter
    compiled cannot be differentiated twice.
    """
    inside: nn.Module = uncompiled(network)
    inside = inside.module if isinstance(inside, DistributedDataParallel) else inside
    return inside if inside is network else own_part(inside)
