"""The gradient that attacks climb."""

import torch
from torch import Tensor
from torch.nn import functional as F

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.attacks.base import Classifier

__all__ = ["cross_entropy_gradient"]


def cross_entropy_gradient(classifier: Classifier, pixels: Tensor, labels: Tensor) -> Tensor:
    """The gradient of each example's cross entropy with respect to its pixels.

    Args:
        classifier: Maps pixels to logits.
        pixels: Shape (n, channels, height, width).
        labels: Shape (n,), int64.

    Returns:
        The same shape as ``pixels``; no ``.grad`` is touched.

    Raises:
        UnusableInput: If the logits do not depend on the pixels in a differentiable way.
    """
    leaf = pixels.detach().requires_grad_()
    # The sum, not the mean: an example's gradient must not depend on how many share its batch.
    loss = F.cross_entropy(classifier(leaf), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True) if loss.requires_grad else (None,)
    if gradient is None:
        raise UnusableInput(
            "no gradient reaches the pixels: the model detaches them or runs without gradients; "
            "a gradient attack would report robustness that is not there"
        )
    return gradient
