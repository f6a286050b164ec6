"""The loss form in training behaviour of BatchNorm, which normalises by the batch at hand: an ablation.

Its passes do not change the running statistics. Its gradients pass through the batch's, as those of the host's loss do.
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import guard_plugin
from guard_plugin.penalties.base import LossFunction, Penalty
from guard_plugin.penalties.checks import check_batch
from guard_plugin.penalties.graph import gradient_for_batch
from guard_plugin.penalties.per_example import Losses, full_precision, unit
from guard_plugin.penalties.sizes import scale_h
from guard_plugin.penalties.undisturbed import undisturbed
from guard_plugin.plugins import installed_plugins
from guard_plugin.versions import keyword_dataclass

__all__ = ["CurvatureInBatchStatistics", "register"]


@keyword_dataclass
class CurvatureInBatchStatistics(Penalty):
    """``strength * | mean_i l_i(x_i + h z_i) - mean_i l_i(x_i) |``, each mean under its own batch's statistics.

    The losses of a batch then depend on all of its examples; z_i is the direction of their sum's gradient. h is the
    paper's 3 at 3x224x224, carried to the size of the inputs.
    """

    name = "curvature_in_batch_statistics"

    def __call__(self, network: nn.Module, inputs: Tensor, targets: Tensor, *, loss_fn: LossFunction) -> Tensor:
        """Compute the penalty of one batch."""
        check_batch(network, inputs, targets)
        inputs, targets = full_precision(inputs.detach(), targets, network)
        losses, h = Losses(network, targets, loss_fn), _h(inputs)
        in_training = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.training]
        with undisturbed(network, inputs.device), torch.enable_grad():
            for layer in in_training:
                layer.training = True
            here = losses(inputs.requires_grad_())
            gradient = gradient_for_batch(here.sum(), inputs, retain_graph=True)
            there = losses(inputs.detach() + h * unit(gradient))
            return self.strength * (there.mean() - here.mean()).abs()


@guard_plugin.hookimpl
def register_penalties() -> list[type[Penalty]]:
    """Return the penalty."""
    return [CurvatureInBatchStatistics]


def _h(inputs: Tensor) -> float:
    return scale_h(3.0, from_shape=(3, 224, 224), to_shape=inputs.shape[1:])


def register() -> None:
    """Make the penalty known to guard-plugin."""
    installed_plugins().register(sys.modules[__name__], "batch_statistics", "examples")
