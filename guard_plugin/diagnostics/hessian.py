"""Products with the Hessian of each example's loss with respect to its input."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard_plugin.errors import UnusableInput
from guard_plugin.penalties import LossFunction
from guard_plugin.penalties.checks import check_losses, check_outputs

__all__ = ["InputHessian", "Losses", "dot", "input_gradients", "losses_of", "norms", "scaled", "unit"]

Losses = Callable[[Tensor], Tensor]
"""Maps inputs, shape (n, ...), to n losses, shape (n,), each of its own input alone."""


def losses_of(network: nn.Module, targets: Tensor, loss_fn: LossFunction | None = None) -> Losses:
    """The losses of a network's outputs on fixed targets; cross entropy by default."""

    def losses(inputs: Tensor) -> Tensor:
        # A copy, because a network may begin with an in-place operation, which a leaf would not survive.
        outputs = check_outputs(network(inputs.clone()))
        return check_losses((loss_fn or _cross_entropy)(outputs, targets), len(inputs))

    return losses


def input_gradients(losses: Losses, inputs: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """The losses, and the gradient of each with respect to its own input.

    Args:
        losses: See ``Losses``.
        inputs: Shape (n, ...).
        create_graph: Whether ``inputs`` requires a gradient, and the gradients are to be differentiated again.

    Raises:
        UnusableInput: If no gradient reaches the inputs, or anything is not finite.
    """
    leaf = inputs if create_graph else inputs.detach().requires_grad_()
    found = losses(leaf)
    gradients = (
        torch.autograd.grad(found.sum(), leaf, create_graph=create_graph, allow_unused=True)[0]
        if found.requires_grad
        else None
    )
    if gradients is None:
        raise UnusableInput("no gradient reaches the inputs: the network detaches them or runs without gradients")
    if not bool(torch.isfinite(found).all() & torch.isfinite(gradients).all()):
        raise UnusableInput("expected finite losses and gradients, got NaN or infinity: has the training diverged?")
    return found.detach(), gradients


class InputHessian:
    """A batch's losses l_i(x_i), their input gradients, and products with the Hessian H_i of each l_i at x_i.

    The Hessian of the sum of the losses is block-diagonal with the H_i as blocks, because in evaluation mode an
    example's loss does not depend on the others: one double backward pass serves the whole batch. The graph is kept
    as long as this object, so memory grows with the batch. Gradients must be enabled.

    Args:
        losses: See ``Losses``.
        inputs: Shape (n, ...).

    Raises:
        UnusableInput: If no gradient reaches the inputs, or anything is not finite.
    """

    def __init__(self, losses: Losses, inputs: Tensor) -> None:
        self._leaf = inputs.detach().requires_grad_()
        self.losses, self._gradients = input_gradients(losses, self._leaf, create_graph=True)

    @property
    def gradients(self) -> Tensor:
        """The gradients, detached."""
        return self._gradients.detach()

    def product(self, vectors: Tensor) -> Tensor:
        """The products H_i v_i, of the same shape as ``vectors`` and the inputs.

        Raises:
            UnusableInput: If one is not finite.
        """
        if not self._gradients.requires_grad:  # the losses are linear in the inputs
            return torch.zeros_like(vectors)
        (product,) = torch.autograd.grad(
            self._gradients, self._leaf, vectors, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        if not bool(torch.isfinite(product).all()):
            raise UnusableInput(
                "expected finite products with the input Hessian, got NaN or infinity: the curvature is beyond the "
                "network's precision or undefined at these inputs; has the training diverged?"
            )
        return product


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each example of a with that of b, shape (n,)."""
    return _flat(a * b).sum(dim=1)


def norms(vectors: Tensor) -> Tensor:
    """The L2 norm of each example, shape (n,), also where its squares underflow or overflow."""
    largest = _largest(vectors)
    found: Tensor = torch.linalg.vector_norm(_flat(_divided(vectors, largest)), dim=1) * largest
    return found


def scaled(vectors: Tensor, factors: Tensor) -> Tensor:
    """Each example times its factor, of shape (n,)."""
    return vectors * _shaped(factors, vectors)


def unit(vectors: Tensor) -> Tensor:
    """Each example at length 1 (0 stays 0), without underflow where it is tiny."""
    once = _divided(vectors, _largest(vectors))
    return _divided(once, norms(once))


def _largest(vectors: Tensor) -> Tensor:
    return _flat(vectors).abs().amax(dim=1)


def _flat(vectors: Tensor) -> Tensor:
    return vectors.reshape(len(vectors), -1)  # unlike flatten(1), also of shape (n,)


def _divided(vectors: Tensor, sizes: Tensor) -> Tensor:
    return vectors / _shaped(torch.where(sizes == 0, torch.ones_like(sizes), sizes), vectors)


def _shaped(per_example: Tensor, like: Tensor) -> Tensor:
    return per_example.view(-1, *[1] * (like.dim() - 1))
