"""What a network's passes can be used for, found out by passes that leave no trace.

Each network is examined at its first loss call, when its training flags, hooks or frozen parameters change, and again
at its 2nd, 4th, 8th call and so on: a layer that does nothing at first, such as a head whose weights are 0, hides the
layers before it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.attributes import held
from guard_plugin.penalties.derivatives import derivatives_explained, is_about_inplace
from guard_plugin.penalties.pass_watch import KeptTensors, PassWatch
from guard_plugin.penalties.passes import alike, outputs_of
from guard_plugin.penalties.per_example import full_precision
from guard_plugin.penalties.reads_training import GENERATORS, generators_named, why_otherwise_in_training
from guard_plugin.penalties.undisturbed import random_state, undisturbed

__all__ = ["NetworkProperties", "check_examples_apart", "forbid", "known_properties", "properties_of"]


@dataclass(frozen=True)
class NetworkProperties:
    """What a network's passes can be used for.

    Args:
        state: The training flags, hooks and frozen parameters of its modules, with which it was examined, and for which
            of the two ways to normalise.
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


# Of so many examples, one by one, the gradient is asked for; of all, it would take the memory of a training pass.
_FEW = 8

# What networks raise for a batch of another size: it is fixed, labels are given too, a layer needs several values.
_OTHER_BATCHES = (RuntimeError, ValueError, AssertionError, LookupError, TypeError)

_DEPENDS = "its outputs depend on other examples of the batch, or on random numbers whose generator cannot be found"

T = TypeVar("T")

_DIRECT_CALLS: "WeakKeyDictionary[nn.Module, int]" = WeakKeyDictionary()
_KNOWN: "WeakKeyDictionary[nn.Module, NetworkProperties]" = WeakKeyDictionary()


def known_properties(network: nn.Module, *, batch_statistics: bool = False) -> "NetworkProperties | None":
    """Return a network's properties where it has been examined in its present state, else None."""
    known = _KNOWN.get(network)
    if known is None or not known.lasting or known.state != _state(network, batch_statistics=batch_statistics):
        return None
    return known


def properties_of(
    network: nn.Module, inputs: Tensor, output: Tensor, *, batch_statistics: bool = False
) -> NetworkProperties:
    """Return a network's properties at a loss call; examine the network where they are not known, or are due again.

    The examination compares the network's evaluation with its output in training for the same inputs, shape (n, ...),
    and its outputs for half of the batch with those for the whole. Of a penalty in ``batch_statistics`` the former is
    done in these. UnsupportedLoss is raised where there are no per-example gradients.
    """
    known = known_properties(network, batch_statistics=batch_statistics)
    calls = 1 if known is None else known.calls + 1
    if known is None or calls & (calls - 1) == 0 or (len(inputs) > 1 and not known.of_several):
        known = _without_gradients(partial(_examine, network, inputs, output, batch_statistics=batch_statistics))
    _refuse_coupled(network, known.coupling)
    _KNOWN[network] = known = replace(known, calls=calls)
    return known


def check_examples_apart(network: nn.Module, inputs: Tensor) -> None:
    """Refuse, with UnsupportedLoss, a network without per-example gradients where no loss call is seen.

    It is examined at the 1st, 2nd, 4th, 8th ... of these calls.
    """
    _DIRECT_CALLS[network] = calls = _DIRECT_CALLS.get(network, 0) + 1
    if calls & (calls - 1) == 0:
        _refuse_coupled(network, _without_gradients(partial(_coupling_of, network, inputs)))


def forbid(network: nn.Module, **reasons: Any) -> None:
    """Remember reasons, by their property's name, that a pass has shown, until the next examination."""
    known = _KNOWN.get(network)
    if known is not None:
        _KNOWN[network] = replace(known, **reasons)


def _without_gradients(examine: Callable[[], T]) -> T:
    """Examine a network with gradients off, to save memory; with gradients where its forward itself differentiates."""
    try:
        with torch.no_grad():
            return examine()
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
    with torch.enable_grad():
        return examine()


def _coupling_of(network: nn.Module, inputs: Tensor) -> str:
    inputs, _ = full_precision(inputs.detach(), inputs, network)
    with undisturbed(network, inputs.device), derivatives_explained(network, inputs, fix=""):
        return _coupling(network, inputs, outputs_of(network, inputs))


def _refuse_coupled(network: nn.Module, coupling: str) -> None:
    if coupling:
        raise UnsupportedLoss(
            f"expected each output of {type(network).__name__} to depend on one example alone in evaluation, found "
            f"that {coupling}, so that no per-example gradient exists; build it with layers that treat examples apart, "
            f"such as GroupNorm or BatchNorm with running statistics"
        )


def _examine(network: nn.Module, inputs: Tensor, output: Tensor, *, batch_statistics: bool) -> NetworkProperties:
    state = _state(network, batch_statistics=batch_statistics)
    against_sharing = why_otherwise_in_training(network, batch_statistics=batch_statistics) or _why_random(network)
    inputs, _ = full_precision(inputs.detach(), inputs, network)
    with undisturbed(network, inputs.device), derivatives_explained(network, inputs, fix=""):
        with alike(network, inputs.device) as checkpoints:
            before, kept = random_state(inputs.device), KeptTensors(network)
            with PassWatch(inputs.device) as watch:
                whole = network(inputs.clone())
            draws = random_state(inputs.device) != before
            seen = watch.seen or kept.why() or ("torch.utils.checkpoint computes parts again" if checkpoints else "")
        properties = NetworkProperties(state, against_sharing=against_sharing or seen, of_several=len(inputs) > 1)
        if not isinstance(whole, Tensor):
            reason = "it does not return one tensor in evaluation"
            return replace(properties, against_precomputing=reason, lasting=False)
        if draws:
            # Half of a batch would draw other numbers, so that nothing could be compared.
            properties = replace(properties, against_precomputing="it is random in evaluation too")
            return replace(properties, coupling=_coupling(network, inputs, whole))
        if not bool(whole.isfinite().all()):
            return replace(properties, against_precomputing="its outputs are not finite numbers", lasting=False)
        if len(inputs) > 1 and bool((whole == whole[:1]).all()):
            reason = "its outputs are all equal, which tells nothing of its layers"
            return replace(properties, against_parts=reason, against_sharing=reason, lasting=False)
        against_parts, coupling = _compare_half(network, inputs, whole)
    if not properties.against_sharing and batch_statistics:
        with undisturbed(network, inputs.device, batch_statistics=True):
            whole = outputs_of(network, inputs)
    if not properties.against_sharing and not _close(output.detach(), whole):
        properties = replace(properties, against_sharing="its output in training is not that of evaluation")
    return replace(properties, against_parts=against_parts, coupling=coupling)


def _why_random(network: nn.Module) -> str:
    modules = list(network.modules())
    own = any(isinstance(one, GENERATORS) for one in (*held(modules), *generators_named(modules)))
    return "it has a random generator of its own" if own else ""


def _compare_half(network: nn.Module, batch: Tensor, whole: Tensor) -> tuple[str, str]:
    """Say why a network cannot be passed half of its batch, and why its outputs depend on more than one example."""
    coupling = _coupling(network, batch, whole)
    if coupling or len(batch) == 1 or len(whole) != len(batch):
        return "", coupling
    half = (len(batch) + 1) // 2
    try:
        alone = outputs_of(network, batch[:half])
    except _OTHER_BATCHES as error:
        if isinstance(error, RuntimeError) and is_about_inplace(error):
            raise
        why = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        return f"it cannot be passed a part of its batch: {why[:120]}", ""
    if alone.shape == whole[:half].shape and _close(alone, whole[:half], other_batch=True):
        return "", ""
    return "", _DEPENDS


def _coupling(network: nn.Module, batch: Tensor, whole: Tensor) -> str:
    if len(batch) == 1 or len(whole) != len(batch) or not bool(whole.isfinite().all()):
        return ""
    return _DEPENDS if _reaches_others(network, batch) or _changes_with_others(network, batch, whole) else ""


def _changes_with_others(network: nn.Module, batch: Tensor, whole: Tensor) -> bool:
    """Tell whether outputs change with other examples in the batch, which a detached statistic hides from gradients."""
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0)).to(batch.device)
    half = len(batch) // 2
    for kept, changed in ((order[:half], order[half:]), (order[half:], order[:half])):
        mixed = batch.clone()
        mixed[changed] = batch.roll(1, 0)[changed]
        if not _close(outputs_of(network, mixed)[kept], whole[kept]):
            return True
    return False


def _reaches_others(network: nn.Module, batch: Tensor) -> bool:
    """Tell whether the outputs for an example have a gradient for another example, however small."""
    for few in dict.fromkeys((min(len(batch), _FEW), len(batch))):
        here = batch[:few].clone().requires_grad_()
        try:
            with torch.enable_grad():
                outputs = outputs_of(network, here)
                rows = outputs[:_FEW].unbind()
        except _OTHER_BATCHES:
            continue
        random = torch.Generator().manual_seed(0)  # the host's own random numbers stay untouched
        cotangent = torch.randn(outputs.shape, generator=random).to(outputs)
        return outputs.requires_grad and any(_reaches(row, here, one, cotangent[one]) for one, row in enumerate(rows))
    return False


def _reaches(output: Tensor, batch: Tensor, one: int, cotangent: Tensor) -> bool:
    (gradient,) = torch.autograd.grad(output, batch, cotangent, allow_unused=True, retain_graph=True)
    if gradient is None:
        return False
    others = torch.cat([gradient[:one], gradient[one + 1 :]])
    return bool((others.isfinite() & (others != 0)).any())


def _state(network: nn.Module, *, batch_statistics: bool) -> tuple[Any, ...]:
    modules = network.modules()
    parts = ((m.training, len(m._forward_hooks), len(m._forward_pre_hooks), _trained(m)) for m in modules)
    return (batch_statistics, *parts)


def _trained(module: nn.Module) -> tuple[bool, ...]:
    return tuple([one.requires_grad for one in module._parameters.values() if one is not None])


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
