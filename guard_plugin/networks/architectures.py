"""The networks that hosts evaluate distilled sets with, by the names that hosts give them."""

import difflib

from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.networks.convnets import (
    CONVNET_GRAMMAR,
    BatchNormConvNet,
    ConvNet,
    ConvNetConfig,
    parse_convnet,
)
from guard_plugin.networks.torchvision_models import resnet18, torchvision_model, torchvision_names

__all__ = ["ARCHITECTURES", "MLP", "BatchNormConvNet", "ConvNet", "ConvNetConfig", "build_network"]


class MLP(nn.Sequential):
    """Two hidden layers of 128 units with ReLU, as in the same paper."""

    def __init__(self, *, channels: int, num_classes: int, im_size: tuple[int, int]) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(channels * im_size[0] * im_size[1], 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, num_classes),
        )


_CONVNETS = {
    "ConvNet": ConvNetConfig(),
    **{f"ConvNetD{depth}": ConvNetConfig(depth=depth) for depth in (1, 2, 3, 4)},
    **{f"ConvNetW{width}": ConvNetConfig(width=width) for width in (32, 64, 128, 256)},
    "ConvNetNN": ConvNetConfig(norm="none"),
    "ConvNetBN": ConvNetConfig(norm="batch"),
    "ConvNetLN": ConvNetConfig(norm="layer"),
    "ConvNetIN": ConvNetConfig(norm="instance"),
    "ConvNetGN": ConvNetConfig(norm="group"),
    "ConvNetAS": ConvNetConfig(activation="sigmoid"),
    "ConvNetAR": ConvNetConfig(activation="relu"),
    "ConvNetAL": ConvNetConfig(activation="leakyrelu"),
    "ConvNetNP": ConvNetConfig(pooling="none"),
    "ConvNetMP": ConvNetConfig(pooling="max"),
    "ConvNetAP": ConvNetConfig(pooling="avg"),
}

# Of examples/baselines: narrow enough for a CPU.
_WIDTHS: dict[str, tuple[int, ...]] = {
    "ConvNetBN16-32": (16, 32),
    "ConvNetBN32-64-128": (32, 64, 128),
}

# In lower case, as torchvision names it: DC's "ResNet18" is another network, without BatchNorm.
_RESNET18 = "resnet18"

ARCHITECTURES = (*_CONVNETS, *_WIDTHS, "MLP", _RESNET18)


def build_network(arch: str, *, channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """Build a network by name, with the initialisation that its host or torchvision leaves it at.

    Args:
        arch: One of ``ARCHITECTURES``; a ConvNet such as "ConvNet-d4-w64-batch", with any of d<DEPTH>, w<WIDTH>, a norm
            (nonorm, batch, layer, instance, group), an activation (relu, leakyrelu, sigmoid) and a pooling (avg, max,
            nopool), in any order; or a classification model of torchvision's, such as "vgg11", as it is there.
        channels: Channels of the images.
        num_classes: Number of logits.
        im_size: Height and width of the images, in pixels.

    Returns:
        A new network, on the CPU, in training mode.

    Raises:
        UnusableInput: If there is no such architecture, it does not take such images, or torchvision, which has it, is
            not installed.
    """
    if arch == "MLP":
        return MLP(channels=channels, num_classes=num_classes, im_size=im_size)
    if arch in _WIDTHS:
        return BatchNormConvNet(_WIDTHS[arch], channels=channels, num_classes=num_classes, im_size=im_size)
    if arch == _RESNET18:
        return resnet18(channels, num_classes, im_size)
    if arch in _CONVNETS or arch.startswith("ConvNet-"):
        config = _CONVNETS[arch] if arch in _CONVNETS else parse_convnet(arch)
        return ConvNet(config, channels=channels, num_classes=num_classes, im_size=im_size)
    if arch not in torchvision_names():
        raise UnusableInput(_unknown(arch))
    return torchvision_model(arch, channels, num_classes, im_size)


def _unknown(arch: str) -> str:
    theirs = torchvision_names()
    near = difflib.get_close_matches(arch, (*ARCHITECTURES, *theirs), n=3)
    return (
        f"unknown architecture {arch!r}{'; close to it: ' + ', '.join(near) if near else ''}: expected one of "
        f"{', '.join(ARCHITECTURES)}; {CONVNET_GRAMMAR}; or a classification model of torchvision's by its name"
        f"{'' if theirs else ', which needs pip install guard-plugin[bench]'}"
    )
