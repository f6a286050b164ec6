"""What an autograd graph tells: where it begins, and what cannot be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.versions import next_node_number

__all__ = [
    "ComputedBefore",
    "Mark",
    "NoSecondDerivative",
    "batch_cut_off",
    "check_differentiable",
    "gradient_for_batch",
    "nodes_behind",
    "reached_leaves",
]


class ComputedBefore(Exception):
    """A pass's graph goes on in one that was made before the pass: a backward pass would free what is the host's."""


class NoSecondDerivative(Exception):
    """A gradient's graph holds an operation whose derivative torch does not have."""


WITHOUT_DERIVATIVE = ("torch::autograd::NotImplemented", "torch::autograd::Error")


class Mark:
    """A moment of this thread, to be compared with when this thread made an autograd node.

    The nodes of a gradient's own graph are others: on CUDA, torch's engine makes them in threads that count anew.
    """

    def __init__(self) -> None:
        self._number = next_node_number()  # nodes are made in the order of their numbers, but for leaves

    def is_after(self, node: Any) -> bool:
        """Tell whether a node was made before this moment."""
        number: int = node._sequence_nr()
        return number < self._number


def nodes_behind(*roots: Tensor, beyond: Tensor | None = None) -> Iterator[Any]:
    """Yield each autograd node behind the roots once; those that are reached through ``beyond`` only are left out."""
    seen = {None, None if beyond is None else beyond.grad_fn}
    nodes: list[Any] = [root.grad_fn for root in roots]
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            nodes.extend([following for following, _ in node.next_functions])
            yield node


def batch_cut_off() -> UnsupportedLoss:
    """Return the error of a loss that has no gradient for the batch."""
    return UnsupportedLoss(
        "expected the loss to depend on the network's batch, found no gradient that leads from one to the other: the "
        "network cuts its input off (torch.no_grad, .detach(), numpy) or rounds it; apply this step to the batch "
        "before the network gets it, or take it out of torch.no_grad"
    )


def gradient_for_batch(
    losses: Tensor, batch: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """Return the gradient of the losses' sum for the batch that they were computed from.

    Raises:
        UnsupportedLoss: If there is none.
    """
    if not losses.requires_grad:
        raise batch_cut_off()
    (gradient,) = torch.autograd.grad(
        losses, batch, torch.ones_like(losses), retain_graph=retain_graph, create_graph=create_graph, allow_unused=True
    )
    if gradient is None:
        raise batch_cut_off()
    return gradient


def check_differentiable(*gradients: Tensor) -> None:
    """Raise NoSecondDerivative where a gradient cannot be differentiated again."""
    if any(node.name() in WITHOUT_DERIVATIVE for node in nodes_behind(*gradients)):
        raise NoSecondDerivative


def reached_leaves(
    *roots: Tensor, but: Sequence[Tensor] = (), beyond: Tensor | None = None, since: Mark | None = None
) -> list[Tensor]:
    """Return the leaf tensors that gradients of the roots reach, read off their autograd graph.

    The leaves in ``but`` are left out, and so are those that are reached through the tensor ``beyond`` only.

    Raises:
        ComputedBefore: If a node was made before ``since``.
        NoSecondDerivative: If a node has no derivative.
    """
    leaves = {id(root): root for root in roots if root.grad_fn is None and root.requires_grad}
    for node in nodes_behind(*roots, beyond=beyond):
        name = node.name()
        if name == "torch::autograd::AccumulateGrad":
            leaves[id(node.variable)] = node.variable
        elif since is not None and since.is_after(node):
            raise ComputedBefore
        elif name in WITHOUT_DERIVATIVE:
            raise NoSecondDerivative
    excluded = {id(tensor) for tensor in but}
    return [leaf for key, leaf in leaves.items() if key not in excluded]
