"""What a network's passes can be used for, found out by passes that leave no trace.

Each network is examined at its first loss call, when its training flags change, and again at its 2nd, 4th, 8th call and
so on: a layer that does nothing at first, such as a head whose weights are 0, hides the layers before it.
"""

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from guard_plugin.penalties.fast.shared_forward import random_state
from guard_plugin.penalties.per_example import full_precision
from guard_plugin.penalties.undisturbed import undisturbed

__all__ = ["NetworkProperties", "forbid_sharing", "known_properties", "properties_of"]


@dataclass(frozen=True)
class NetworkProperties:
    """What a network's passes can be used for.

    Args:
        training_flags: The flags of its modules, under which it was examined.
        against_precomputing: Why no gradient can be computed before the host's backward pass; empty where it can.
        against_parts: Why its batch cannot be passed in parts; empty where it can.
        against_sharing: Why its training pass does not serve as one of evaluation; empty where it does.
        calls: How many loss calls have asked for the properties.
        lasting: Whether they hold for further calls.
    """

    training_flags: tuple[bool, ...]
    against_precomputing: str = ""
    against_parts: str = ""
    against_sharing: str = ""
    calls: int = 1
    lasting: bool = True


_KNOWN: "WeakKeyDictionary[nn.Module, NetworkProperties]" = WeakKeyDictionary()


def known_properties(network: nn.Module) -> NetworkProperties | None:
    """Return a network's properties where it has been examined under its present training flags, else None."""
    known = _KNOWN.get(network)
    return known if known is not None and known.lasting and known.training_flags == _training_flags(network) else None


def properties_of(network: nn.Module, inputs: Tensor, output: Tensor) -> NetworkProperties:
    """Return a network's properties at a loss call; examine the network where they are not known, or are due again.

    The examination compares the network's evaluation with its output in training for the same inputs, shape (n, ...),
    and its outputs for two parts of the batch with those for the whole.
    """
    known = known_properties(network)
    calls = 1 if known is None else known.calls + 1
    if known is None or calls & (calls - 1) == 0:
        known = _examine(network, inputs, output)
    _KNOWN[network] = known = replace(known, calls=calls)
    return known


def forbid_sharing(network: nn.Module, properties: NetworkProperties, reason: str) -> None:
    """Remember a reason against sharing that a training pass has shown, until the next examination."""
    _KNOWN[network] = replace(properties, against_sharing=reason)


def _examine(network: nn.Module, inputs: Tensor, output: Tensor) -> NetworkProperties:
    flags = _training_flags(network)
    inputs, _ = full_precision(inputs, inputs, network)
    with undisturbed(network, inputs.device), torch.no_grad():
        before = random_state(inputs.device)
        whole = network(inputs.clone())
        if random_state(inputs.device) != before:
            return NetworkProperties(flags, against_precomputing="it is random in evaluation too")
        against_parts = _why_not_in_parts(network, inputs, whole) if isinstance(whole, Tensor) else ""
    if not isinstance(whole, Tensor):
        return NetworkProperties(
            flags, against_precomputing="it does not return one tensor in evaluation", lasting=False
        )
    if not bool(whole.isfinite().all()):
        return NetworkProperties(flags, against_precomputing="its outputs are not finite numbers", lasting=False)
    if len(inputs) > 1 and bool((whole == whole[:1]).all()):
        reason = "its outputs are all equal, which tells nothing of its layers"
        return NetworkProperties(flags, against_parts=reason, against_sharing=reason, lasting=False)
    differs = "" if _close(output.detach(), whole) else "its output in training is not that of evaluation"
    return NetworkProperties(flags, against_parts=against_parts, against_sharing=differs, lasting=len(inputs) > 1)


def _why_not_in_parts(network: nn.Module, inputs: Tensor, whole: Tensor) -> str:
    half = (len(inputs) + 1) // 2
    try:
        parts = [network(part.clone()) for part in (inputs[:half], inputs[half:]) if len(part)]
        same = _close(torch.cat(parts), whole)
    except RuntimeError as error:
        return f"it cannot be passed a part of its batch: {str(error).splitlines()[0][:120]}"
    return "" if same else "its outputs for an example depend on the others of the batch"


def _training_flags(network: nn.Module) -> tuple[bool, ...]:
    return tuple(module.training for module in network.modules())


def _close(a: Tensor, b: Tensor) -> bool:
    """Tell whether outputs are equal up to what another order of summation, or TF32's ten bits, change."""
    if a.shape != b.shape:
        return False
    # On CUDA, cuDNN's default rounds convolutions' factors to TF32, in another algorithm for another batch size.
    rounded = a.is_cuda and a.dtype == torch.float32 and _convolutions_use_tf32()
    tolerance = 2.0**-7 if rounded else float(torch.finfo(a.dtype).eps ** 0.5)
    return bool((a.double() - b.double()).abs().max() <= tolerance * b.double().abs().max())


def _convolutions_use_tf32() -> bool:
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # from torch 2.9 on, where the host has set fp32_precision in its place
        convolutions: Any = torch.backends.cudnn
        return bool(convolutions.conv.fp32_precision != "ieee")
