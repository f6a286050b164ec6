"""How a network behaves, found out by passes that leave no trace.

Each network is examined at its first loss call, when its training flags change, and again at its 2nd, 4th, 8th call and
so on: a layer that does nothing at first, such as a head whose weights are 0, hides what comes before it.
"""

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from guard_plugin.penalties.fast.shared_forward import random_state
from guard_plugin.penalties.per_example import full_precision
from guard_plugin.penalties.undisturbed import undisturbed

__all__ = ["Conduct", "conduct_of", "known_conduct", "note_not_shared"]


@dataclass(frozen=True)
class Conduct:
    """What a network's passes can be used for.

    Args:
        flags: The training flags of its modules, under which it was examined.
        against_known: Why no gradient can be computed before the host's backward pass; empty where it can.
        against_parts: Why its batch cannot be passed in parts.
        against_sharing: Why its training pass does not serve as one of evaluation.
        calls: At how many loss calls it was asked for.
        lasting: Whether it holds for further calls.
        largest: The size of the largest tensor that one of its modules returned at the last of them, in bytes.
    """

    flags: tuple[bool, ...]
    against_known: str = ""
    against_parts: str = ""
    against_sharing: str = ""
    calls: int = 1
    lasting: bool = True
    largest: int = 0


_KNOWN: "WeakKeyDictionary[nn.Module, Conduct]" = WeakKeyDictionary()


def known_conduct(network: nn.Module) -> Conduct | None:
    """Return a network's conduct where it has been examined under its present flags."""
    known = _KNOWN.get(network)
    return known if known is not None and known.lasting and known.flags == _flags(network) else None


def conduct_of(network: nn.Module, inputs: Tensor, output: Tensor, largest: int) -> Conduct:
    """Return a network's conduct at a loss call; examine it where it is not known, or it is time to.

    Its evaluation is compared with its output in training, and its outputs for two parts of a batch with the whole.

    Args:
        network: In the state in which it gave the output.
        inputs: Its batch, shape (n, ...).
        output: What it returned for it, in training.
        largest: The size of the largest tensor that one of its modules returned, in bytes.
    """
    known = known_conduct(network)
    calls = 1 if known is None else known.calls + 1
    if known is None or calls & (calls - 1) == 0:
        known = _examine(network, inputs, output)
    _KNOWN[network] = known = replace(known, calls=calls, largest=largest)
    return known


def note_not_shared(network: nn.Module, conduct: Conduct, reason: str) -> None:
    """Remember a reason against sharing that a training pass has shown, until the next examination."""
    _KNOWN[network] = replace(conduct, against_sharing=reason)


def _examine(network: nn.Module, inputs: Tensor, output: Tensor) -> Conduct:
    flags = _flags(network)
    inputs, _ = full_precision(inputs, inputs, network)
    with undisturbed(network, inputs.device), torch.no_grad():
        before = random_state(inputs.device)
        whole = network(inputs.clone())
        if random_state(inputs.device) != before:
            return Conduct(flags, against_known="it is random in evaluation too")
        apart = _against_parts(network, inputs, whole)
    if not isinstance(whole, Tensor) or not bool(whole.isfinite().all()):
        return Conduct(flags, against_known="its outputs are not finite numbers", lasting=False)
    if len(inputs) > 1 and bool((whole == whole[:1]).all()):
        reason = "its outputs are all equal, which tells nothing of its layers"
        return Conduct(flags, against_parts=reason, against_sharing=reason, lasting=False)
    differs = "" if _close(output.detach(), whole) else "its output in training is not that of evaluation"
    return Conduct(flags, against_parts=apart, against_sharing=differs, lasting=len(inputs) > 1)


def _against_parts(network: nn.Module, inputs: Tensor, whole: Tensor) -> str:
    half = (len(inputs) + 1) // 2
    try:
        parts = [network(part.clone()) for part in (inputs[:half], inputs[half:]) if len(part)]
        same = _close(torch.cat(parts), whole)
    except RuntimeError as error:
        return f"it cannot be passed a part of its batch: {str(error).splitlines()[0][:120]}"
    return "" if same else "its outputs for an example depend on the others of the batch"


def _flags(network: nn.Module) -> tuple[bool, ...]:
    return tuple(module.training for module in network.modules())


def _close(a: Tensor, b: Tensor) -> bool:
    """Tell whether outputs are equal up to what another order of summation changes."""
    if a.shape != b.shape:
        return False
    difference = (a.double() - b.double()).abs().max()
    return bool(difference <= torch.finfo(a.dtype).eps ** 0.5 * b.double().abs().max())
