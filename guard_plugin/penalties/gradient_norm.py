"""The squared norm of the loss's input gradient: the first-order penalty that curvature is compared with."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from guard_plugin.penalties.base import LossFunction, Penalty
from guard_plugin.penalties.checks import check_batch
from guard_plugin.penalties.derivatives import derivatives_explained
from guard_plugin.penalties.graph import check_differentiable, gradient_for_batch
from guard_plugin.penalties.per_example import Losses, full_precision
from guard_plugin.penalties.undisturbed import undisturbed
from guard_plugin.versions import keyword_dataclass, plain_attention

__all__ = ["GradientNorm"]


@keyword_dataclass
class GradientNorm(Penalty):
    """``strength * mean_i || grad_x l_i(x_i) ||_2^2``: double backpropagation (Drucker and LeCun, 1992).

    As a defence: Ross and Doshi-Velez, AAAI 2018. GUARD's paper compares with a penalty on the gradient in section 5.4
    (Table 3). The passes are those of the curvature penalty: evaluation behaviour, autocast off, no trace left. The
    value does not depend on the batch size.
    """

    name: ClassVar[str] = "gradient_norm"

    def __call__(self, network: nn.Module, inputs: Tensor, targets: Tensor, *, loss_fn: LossFunction) -> Tensor:
        """Compute the penalty of one batch."""
        check_batch(network, inputs, targets)
        inputs, targets = full_precision(inputs, targets, network)
        explained = derivatives_explained(network, inputs, fix="use penalty 'curvature' with form='loss'")
        with undisturbed(network, inputs.device), torch.enable_grad(), plain_attention(), explained:
            here = inputs.detach().requires_grad_()
            losses = Losses(network, targets, loss_fn)(here)
            gradient = gradient_for_batch(losses.sum(), here, create_graph=True)
            check_differentiable(gradient)
            return self.strength * gradient.reshape(len(inputs), -1).square().sum(dim=1).mean()
