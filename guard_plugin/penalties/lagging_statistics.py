"""Networks whose evaluation, in which penalties' passes are made, follows their training slowly."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from guard_plugin.penalties.base import Penalty

__all__ = ["why_lagging"]

_TORCHS = 0.1  # the momentum that BatchNorm has by default


def why_lagging(network: nn.Module, penalty: Penalty) -> str:
    """Say which BatchNorm layers in training keep running statistics that lag behind; empty where none do.

    A penalty's passes normalise by these. It can then become small in evaluation alone, while the network that is
    trained, which normalises by the batch, is what it would be without the penalty: docs/penalty.md has a measurement.

    Args:
        network: The network, in the mode in which it is trained.
        penalty: The penalty. One in batch statistics is a penalty on the network that is trained.
    """
    if penalty.batch_statistics:
        return ""
    lagging = {
        name: layer.momentum
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm) and layer.training and (layer.momentum is None or layer.momentum < _TORCHS)
    }
    if not lagging:
        return ""
    name, momentum = next(iter(lagging.items()))
    return (
        f"{len(lagging)} BatchNorm layer(s) of {type(network).__name__} ({name or 'itself'} first) have momentum "
        f"{momentum}, and torch's is {_TORCHS}: their running statistics lag behind training, and the penalty's passes "
        f"in evaluation are made with these. Give form 'loss' with batch_statistics (--form loss --set "
        f"batch_statistics=true), or compare the network's accuracy in evaluation with a plain run's before you use it"
    )
