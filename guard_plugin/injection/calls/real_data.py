"""Whether a loss call is on real data: which networks are trained by it, and on which images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.calls.loss_call import LossCall
from guard_plugin.injection.calls.origins import Origins
from guard_plugin.penalties.graph import nodes_behind, reached_leaves

__all__ = [
    "EVALUATION",
    "LEARNED",
    "PART_OF_LEARNED",
    "UNDECIDED",
    "is_part_of_learned",
    "is_trained",
    "refuse_features",
    "why_not_real",
    "why_not_real_batch",
]

EVALUATION = "network in eval mode"

LEARNED = "synthetic: input requires grad"

UNDECIDED = "undecided: "
"""How reasons begin that say that a batch may be real data, or not."""

PART_OF_LEARNED = f"{UNDECIDED}input is a part of a tensor that requires grad, which may hold real images, too"

# Operations that put together what is learned and what is not.
_MIXING = (
    *("Cat", "Stack", "Where", "IndexPut", "CopySlices", "Scatter", "MaskedScatter", "SliceScatter", "IndexCopy"),
    "SWhere",  # torch.where in torch 1.11
)


def why_not_real(call: LossCall) -> str | None:
    """Say why a loss call is not one on real data in training; None where it is.

    Real data in training shows in five signals, none of which suffices alone: gradients flow to the output, they are
    on where the loss is evaluated (a host may log it without), the network is in training mode,
    its input holds no learned images, some parameter requires grad. A reason that begins with UNDECIDED means that the
    signals do not tell. Where gradients flow to the output, but not from a network, or to no parameter of it and no
    input, UnsupportedLoss is raised.
    """
    if not call.output.requires_grad:
        return "no gradient"
    if not torch.is_grad_enabled():
        return "gradients off"
    network = call.made_by.network
    if not network.training:
        return EVALUATION
    reason = why_not_real_batch(call.inputs, call.origins)
    if reason is not None:
        return reason
    if is_trained(network):
        return None
    call.made_by.check_parameters()
    if not call.inputs.requires_grad:
        raise UnsupportedLoss(
            f"expected gradients to flow to parameters of {type(network).__name__}, of which none requires grad, found "
            f"that they flow to other tensors, which a penalty would not reach; make them its parameters "
            f"(nn.Parameter), or freeze the network under torch.no_grad()"
        )
    return "frozen network"


def why_not_real_batch(batch: Tensor, origins: Origins) -> str | None:
    """Say why what a network was given is not a batch of real images; None where it is."""
    backbone = origins.network_of(batch)
    if backbone is not None and not batch.requires_grad:
        return f"{UNDECIDED}input computed by {type(backbone).__name__}"
    return _why_not_real_input(batch, origins)


def is_trained(network: nn.Module) -> bool:
    """Tell whether some parameter of a network requires grad."""
    return any(parameter.requires_grad for parameter in network.parameters())


def refuse_features(call: LossCall) -> None:
    """Refuse a penalty that would act on what another network returned, and not on images."""
    reason = why_not_real_batch(call.inputs, call.origins) or ""
    if "input computed by" in reason:
        raise UnsupportedLoss(
            f"expected {type(call.made_by.network).__name__} to be called on images, found {reason.split(': ')[1]}: "
            f"the penalty would act on features; call both as one network"
        )


def _why_not_real_input(batch: Tensor, origins: Origins) -> str | None:
    """Say why a network's input is not a batch of real images; None where it is.

    Where it requires grad, but no value of it depends on what is learned (the real part of a mixture), it is real.

    Args:
        batch: The input, or those rows of it that are judged.
        origins: What knows the networks that were called.
    """
    if not batch.requires_grad:
        return None
    if batch.grad_fn is None:
        return LEARNED
    leaves, mixed = [], False
    for node in nodes_behind(batch):
        network = origins.network_of_node(node)
        if network is not None:
            return f"{UNDECIDED}input computed by {type(network).__name__}"
        if node.name() == "torch::autograd::AccumulateGrad":
            leaves.append(node.variable)
        mixed = mixed or node.name().rpartition("::")[2].startswith(_MIXING)
    owner = next((one for one in map(origins.network_with, leaves) if one is not None), None)
    if owner is not None:
        return f"{UNDECIDED}input computed by parameters of {type(owner).__name__}"
    if mixed:
        return _by_values(batch, leaves)
    if sum(leaf.numel() for leaf in leaves) < batch[0].numel():
        return f"{UNDECIDED}input depends on learned tensors that are smaller than an image"
    return LEARNED


def is_part_of_learned(batch: Tensor) -> bool:
    """Tell whether a batch was computed from a leaf tensor that holds more examples than the batch."""
    leaves = reached_leaves(batch) if batch.requires_grad else []
    return any(leaf.dim() > 1 and len(leaf) > len(batch) for leaf in leaves)


def _by_values(batch: Tensor, leaves: list[Tensor]) -> str | None:
    """Tell from a directional derivative which examples change with what is learned."""
    cotangent = torch.zeros_like(batch, requires_grad=True)
    try:
        with torch.enable_grad():
            back = torch.autograd.grad(batch, leaves, cotangent, create_graph=True, allow_unused=True)
            random = torch.Generator().manual_seed(0)  # the host's own random numbers stay untouched
            along = [(one * torch.randn(one.shape, generator=random).to(one)).sum() for one in back if one is not None]
            (change,) = torch.autograd.grad(along, cotangent, allow_unused=True) if along else (None,)
    except RuntimeError as error:
        return f"{UNDECIDED}input requires grad through {str(error).splitlines()[0][:80]}"
    learned = 0 if change is None else int(change.reshape(len(change), -1).ne(0).any(dim=1).sum())
    if learned == 0:
        return None
    return LEARNED if learned == len(batch) else f"{UNDECIDED}a part of the input is learned"
