"""Products with the Hessian of each example's loss with respect to its input."""

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.penalties.per_example import Losses

__all__ = ["InputHessian", "dot", "input_gradients", "norms", "scaled"]


def input_gradients(losses: Losses, inputs: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Compute the losses, and the gradient of each with respect to its own input.

    Where the gradients are to be differentiated again (``create_graph``), ``inputs`` must require a gradient.

    Raises:
        UnusableInput: If no gradient reaches the inputs, or a loss or a gradient is not finite.
    """
    leaf = inputs if create_graph else inputs.detach().requires_grad_()
    found = losses(leaf)
    gradients = None
    if found.requires_grad:
        (gradients,) = torch.autograd.grad(found.sum(), leaf, create_graph=create_graph, allow_unused=True)
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
    """

    def __init__(self, losses: Losses, inputs: Tensor) -> None:
        self._leaf = inputs.detach().requires_grad_()
        self.losses, self._gradients = input_gradients(losses, self._leaf, create_graph=True)
        self.gradients = self._gradients.detach()

    def product(self, vectors: Tensor) -> Tensor:
        """Compute the products H_i v_i, in the inputs' shape; refuse products that are not finite."""
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


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each example of a with that of b, shape (n,)."""
    return (a * b).reshape(len(a), -1).sum(dim=1)


def norms(vectors: Tensor) -> Tensor:
    """Return the L2 norm of each example, shape (n,), also where its squares underflow or overflow."""
    flat = vectors.reshape(len(vectors), -1)  # unlike flatten(1), also for vectors of shape (n,)
    largest = flat.abs().amax(dim=1)
    divisors = torch.where(largest == 0, torch.ones_like(largest), largest)
    found: Tensor = torch.linalg.vector_norm(flat / divisors[:, None], dim=1) * largest
    return found


def scaled(vectors: Tensor, factors: Tensor) -> Tensor:
    """Multiply each example by its factor, shape (n,)."""
    return vectors * factors.view(-1, *[1] * (vectors.dim() - 1))
