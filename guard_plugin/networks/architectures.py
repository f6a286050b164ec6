"""Building networks by the names that hosts and torchvision give them."""

import difflib

from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.networks.convnets import CONVNET_GRAMMAR, CONVNETS, ConvNet, parse_convnet
from guard_plugin.networks.torchvision_models import resnet18, torchvision_model, torchvision_names

__all__ = ["ARCHITECTURES", "build_network"]

ARCHITECTURES = (*CONVNETS, "MLP", "resnet18")


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
        UnusableInput: If there is no such architecture, it does not take such images, or it is torchvision's, which is
            not installed.
    """
    if arch == "MLP":
        return _mlp(channels * im_size[0] * im_size[1], num_classes)
    if arch in CONVNETS or arch.startswith("ConvNet-"):
        config = CONVNETS[arch] if arch in CONVNETS else parse_convnet(arch)
        return ConvNet(config, channels=channels, num_classes=num_classes, im_size=im_size)
    if arch == "resnet18":  # in lower case, as torchvision names it: DC's "ResNet18" is another, without BatchNorm
        return resnet18(channels, num_classes, im_size)
    theirs = torchvision_names()
    if arch in theirs:
        return torchvision_model(arch, channels, num_classes, im_size)
    near = difflib.get_close_matches(arch, (*ARCHITECTURES, *theirs), n=3)
    raise UnusableInput(
        f"unknown architecture {arch!r}{'; close to it: ' + ', '.join(near) if near else ''}: expected one of "
        f"{', '.join(ARCHITECTURES)}; {CONVNET_GRAMMAR}; or a classification model of torchvision's by its name"
        f"{'' if theirs else ', which needs pip install guard-plugin[bench]'}"
    )


def _mlp(inputs: int, num_classes: int) -> nn.Module:
    """Build the MLP of Zhao et al. (2021): two hidden layers of 128 units with ReLU."""
    hidden = [nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, num_classes))
