"""A network's penultimate features, and how fast the loss changes with them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnusableInput

__all__ = ["Features", "Penultimate", "largest_slope", "lipschitz_of_head", "penultimate"]

Features = Callable[[Tensor], Tensor]
"""Maps a network's inputs, shape (n, ...), to features, shape (n, ...)."""


@dataclass(frozen=True)
class Penultimate:
    """The features that ``head``, the last linear layer of a network in eval mode, takes."""

    network: nn.Module
    head: nn.Linear

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map inputs of shape (n, ...) to features of shape (n, d), without a graph."""
        return self.with_logits(inputs)[0][0]

    def with_logits(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """Make one pass; return what each call of the last linear layer took, and the network's output."""
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
        try:
            with torch.no_grad():
                logits: Tensor = self.network(inputs)
        finally:
            handle.remove()
        return seen, logits


def penultimate(network: nn.Module, inputs: Tensor) -> Penultimate:
    """Find a network's penultimate features.

    Args:
        network: A network in eval mode whose last linear layer gives the logits.
        inputs: Shape (n, ...): some inputs, to check that on.

    Raises:
        UnusableInput: If the network has no linear layer, or the output of its last one is not the network's.
    """
    found = "it has none"
    heads = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if heads:
        name, head = heads[-1]
        features = Penultimate(network, head)
        seen, logits = features.with_logits(inputs)
        if len(seen) == 1 and seen[0].dim() == 2 and torch.equal(head(seen[0]), logits):
            return features
        found = f"the output of {name!r} is not the network's"
    raise UnusableInput(
        f"expected a network whose last linear layer gives the logits, but {found}: give features of your own"
    )


def lipschitz_of_head(head: nn.Linear, label: int) -> float:
    """Compute the Lipschitz constant of the cross entropy as a function of the features that a linear layer takes.

    The gradient for class y is W^T (p - e_y) = sum_k p_k (w_k - w_y), a convex combination, so its norm is at most
    max_k ||w_k - w_y||, and comes as near to it as one likes where p_k goes to 1. So this is exact over all features.

    Args:
        head: The layer that gives the logits.
        label: The class y.

    Returns:
        max_k ||w_k - w_y||_2.
    """
    weight = head.weight.detach().double()
    return float((weight - weight[label]).norm(dim=1).max())


def largest_slope(losses: Tensor, features: Tensor) -> float:
    """Return the largest |l_i - l_j| / ||f_i - f_j||_2 of any pair: a LOWER estimate of a Lipschitz constant.

    Losses have shape (n,), features (n, ...). The slope is 0 where no two examples have different features.
    """
    flat = features.double().flatten(1)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    rises = (losses.double()[:, None] - losses.double()[None]).abs()
    slopes = torch.where(distances > 0, rises / distances, torch.zeros_like(distances))
    return float(slopes.max())
