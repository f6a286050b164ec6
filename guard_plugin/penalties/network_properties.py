"""What a network's passes can be used for, found out by passes that leave no trace.

Each network is examined at its first loss call, when its training flags or hooks change, and again at its 2nd, 4th, 8th
call and so on: a layer that does nothing at first, such as a head whose weights are 0, hides the layers before it.
"""

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.derivatives import derivatives_explained, is_about_inplace
from guard_plugin.penalties.pass_watch import KeptTensors, PassWatch
from guard_plugin.penalties.passes import alike, outputs_of
from guard_plugin.penalties.per_example import full_precision
from guard_plugin.penalties.reads_training import why_otherwise_in_training
from guard_plugin.penalties.undisturbed import random_state, undisturbed

__all__ = ["NetworkProperties", "forbid", "known_properties", "properties_of"]


@dataclass(frozen=True)
class NetworkProperties:
    """What a network's passes can be used for.

    Args:
        state: The training flags and the hooks of its modules, with which it was examined.
        against_precomputing: Why no gradient can be computed before the host's backward pass; empty where it can.
        against_parts: Why its batch cannot be passed in parts; empty where it can.
        against_sharing: Why its training pass does not serve as one of evaluation; empty where it does.
        coupling: Why its outputs are no functions of one example each; empty where they are.
        of_several: Whether it was examined with several examples, without which nothing tells that they are apart.
        calls: How many loss calls have asked for the properties.
        lasting: Whether they hold for further calls.
    """

    state: tuple[Any, ...]
    against_precomputing: str = ""
    against_parts: str = ""
    against_sharing: str = ""
    coupling: str = ""
    of_several: bool = True
    calls: int = 1
    lasting: bool = True

    def check_examples_apart(self, network: nn.Module) -> None:
        """Refuse, with UnsupportedLoss, a network whose outputs depend on other examples of the batch, or on chance."""
        if self.coupling:
            raise UnsupportedLoss(
                f"expected each output of {type(network).__name__} to depend on one example alone in evaluation, found "
                f"that {self.coupling}, so that no per-example gradient exists; build it with layers that treat "
                f"examples apart, such as GroupNorm or BatchNorm with running statistics"
            )


# Of so many examples the gradient is asked for; of all, it would take the memory of another training pass.
_FEW = 8

_KNOWN: "WeakKeyDictionary[nn.Module, NetworkProperties]" = WeakKeyDictionary()


def known_properties(network: nn.Module) -> "NetworkProperties | None":
    """Return a network's properties where it has been examined in its present state, else None."""
    known = _KNOWN.get(network)
    return known if known is not None and known.lasting and known.state == _state(network) else None


def properties_of(network: nn.Module, inputs: Tensor, output: Tensor) -> NetworkProperties:
    """Return a network's properties at a loss call; examine the network where they are not known, or are due again.

    The examination compares the network's evaluation with its output in training for the same inputs, shape (n, ...),
    and its outputs for half of the batch with those for the whole. UnsupportedLoss is raised where there are no
    per-example gradients.
    """
    known = known_properties(network)
    calls = 1 if known is None else known.calls + 1
    if known is None or calls & (calls - 1) == 0 or (len(inputs) > 1 and not known.of_several):
        known = _examine(network, inputs, output)
    known.check_examples_apart(network)
    _KNOWN[network] = known = replace(known, calls=calls)
    return known


def forbid(network: nn.Module, **reasons: Any) -> None:
    """Remember reasons, by their property's name, that a pass has shown, until the next examination."""
    known = _KNOWN.get(network)
    if known is not None:
        _KNOWN[network] = replace(known, **reasons)


def _examine(network: nn.Module, inputs: Tensor, output: Tensor) -> NetworkProperties:
    against_sharing = why_otherwise_in_training(network)
    properties = NetworkProperties(_state(network), against_sharing=against_sharing)
    inputs, _ = full_precision(inputs.detach(), inputs, network)
    explained = derivatives_explained(network, inputs, fix="")
    with undisturbed(network, inputs.device), torch.no_grad(), explained:
        with alike(network, inputs.device) as checkpoints:
            before, kept = random_state(inputs.device), KeptTensors(network)
            with PassWatch() as watch:
                whole = network(inputs.clone())
            draws = random_state(inputs.device) != before
            seen = watch.seen or kept.why() or ("torch.utils.checkpoint computes parts again" if checkpoints else "")
            properties = replace(properties, against_sharing=against_sharing or seen)
        if not isinstance(whole, Tensor):
            reason = "it does not return one tensor in evaluation"
            return replace(properties, against_precomputing=reason, lasting=False)
        if draws:
            # Half of a batch draws other numbers, so that nothing can be compared.
            return replace(properties, against_precomputing="it is random in evaluation too")
        if not bool(whole.isfinite().all()):
            return replace(properties, against_precomputing="its outputs are not finite numbers", lasting=False)
        if len(inputs) > 1 and bool((whole == whole[:1]).all()):
            reason = "its outputs are all equal, which tells nothing of its layers"
            return replace(properties, against_parts=reason, against_sharing=reason, lasting=False)
        against_parts, coupling = _compare_half(network, inputs, whole)
    if not properties.against_sharing and not _close(output.detach(), whole):
        properties = replace(properties, against_sharing="its output in training is not that of evaluation")
    return replace(properties, against_parts=against_parts, coupling=coupling, of_several=len(inputs) > 1)


def _compare_half(network: nn.Module, batch: Tensor, whole: Tensor) -> tuple[str, str]:
    """Say why a network cannot be passed half of its batch, and why its outputs depend on more than one example."""
    half = (len(batch) + 1) // 2
    if len(batch) == 1 or len(whole) != len(batch):
        return "", ""
    if _reaches_others(network, batch[:_FEW]):
        return "", "its outputs depend on other examples of the batch"
    try:
        alone = outputs_of(network, batch[:half])
    except (RuntimeError, ValueError) as error:  # a fixed batch size, or a layer that needs several values
        if isinstance(error, RuntimeError) and is_about_inplace(error):
            raise
        return f"it cannot be passed a part of its batch: {str(error).splitlines()[0][:120]}", ""
    if alone.shape == whole[:half].shape and _close(alone, whole[:half], other_batch=True):
        return "", ""
    return "", "its outputs depend on other examples of the batch, or on random numbers whose generator cannot be found"


def _reaches_others(network: nn.Module, batch: Tensor) -> bool:
    """Tell whether the outputs for some examples have a gradient for the others, however small."""
    try:
        with torch.enable_grad():
            batch = batch.clone().requires_grad_()
            outputs = outputs_of(network, batch)
    except (RuntimeError, ValueError):
        return False  # a fixed batch size, which the pass of half a batch will tell
    if not outputs.requires_grad:
        return False
    random = torch.Generator().manual_seed(0)  # the host's own random numbers stay untouched
    # Chosen at random, as neighbours may be coupled in pairs.
    others = torch.randperm(len(batch), generator=random).to(batch.device)[(len(batch) + 1) // 2 :]
    cotangent = torch.randn(outputs.shape, generator=random).to(outputs).index_fill(0, others, 0)
    (gradient,) = torch.autograd.grad(outputs, batch, cotangent, allow_unused=True)
    return gradient is not None and bool((gradient[others].isfinite() & (gradient[others] != 0)).any())


def _state(network: nn.Module) -> tuple[Any, ...]:
    return tuple((m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules())


def _close(a: Tensor, b: Tensor, *, other_batch: bool = False) -> bool:
    """Tell whether outputs are equal up to what another order of summation changes.

    For another batch size cuDNN may choose another algorithm, by default with factors that are rounded to TF32.
    """
    if a.shape != b.shape:
        return False
    rounded = other_batch and a.is_cuda and a.dtype == torch.float32 and _convolutions_use_tf32()
    tolerance = 2.0**-7 if rounded else float(torch.finfo(a.dtype).eps ** 0.5)
    return bool((a.double() - b.double()).abs().max() <= tolerance * b.double().abs().max())


def _convolutions_use_tf32() -> bool:
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # from torch 2.9 on, where the host has set fp32_precision in its place
        convolutions: Any = torch.backends.cudnn
        return bool(convolutions.conv.fp32_precision != "ieee")
