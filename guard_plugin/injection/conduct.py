"""How a network behaves, found out by passes that leave no trace, once for each network and its training flags."""

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from guard_plugin.injection.opening import random_state
from guard_plugin.penalties.per_example import full_precision
from guard_plugin.penalties.undisturbed import undisturbed

__all__ = ["Conduct", "conduct_of", "known_conduct", "note_not_shared"]

_KNOWN: "WeakKeyDictionary[nn.Module, Conduct]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Conduct:
    """What a network's passes can be used for.

    Args:
        flags: The training flags of its modules, under which it was examined.
        against_parts: Why its batch cannot be passed in parts, each once; empty where it can.
        against_sharing: Why its training pass does not serve as one of evaluation; empty where it does.
    """

    flags: tuple[bool, ...]
    against_parts: str
    against_sharing: str


def known_conduct(network: nn.Module) -> Conduct | None:
    """Return a network's conduct where it has been examined under its present flags."""
    known = _KNOWN.get(network)
    return known if known is not None and known.flags == _flags(network) else None


def conduct_of(network: nn.Module, inputs: Tensor, output: Tensor) -> Conduct:
    """Return a network's conduct, and examine it where it is not known.

    Its evaluation is compared with its output in training, and its outputs for two parts of a batch with the whole.

    Args:
        network: In the state in which it gave the output.
        inputs: Its batch, shape (n, ...).
        output: What it returned for it, in training.
    """
    known = known_conduct(network)
    if known is None:
        known = _KNOWN[network] = _examine(network, inputs, output)
    return known


def note_not_shared(network: nn.Module, conduct: Conduct, reason: str) -> None:
    """Remember a reason against sharing that a training pass has shown."""
    _KNOWN[network] = replace(conduct, against_sharing=reason)


def _examine(network: nn.Module, inputs: Tensor, output: Tensor) -> Conduct:
    flags = _flags(network)
    inputs, _ = full_precision(inputs, inputs, network)
    half = (len(inputs) + 1) // 2
    with undisturbed(network, inputs.device), torch.no_grad():
        before = random_state(inputs.device)
        whole = network(inputs.clone())
        if random_state(inputs.device) != before:
            return Conduct(flags, "it is random in evaluation too", "it is random in evaluation too")
        parts = [network(part.clone()) for part in (inputs[:half], inputs[half:]) if len(part)]
    apart = "" if _close(torch.cat(parts), whole) else "its outputs for an example depend on the others of the batch"
    differs = "" if _close(output.detach(), whole) else "its output in training is not that of evaluation"
    return Conduct(flags, apart, apart or differs)


def _flags(network: nn.Module) -> tuple[bool, ...]:
    return tuple(module.training for module in network.modules())


def _close(a: Tensor, b: Tensor) -> bool:
    """Tell whether outputs are equal up to what another order of summation changes."""
    if a.shape != b.shape:
        return False
    difference = (a.double() - b.double()).abs().max()
    return bool(difference <= torch.finfo(a.dtype).eps ** 0.5 * b.double().abs().max())
