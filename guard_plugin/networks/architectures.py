"""Building networks by the names that hosts and torchvision give them."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.names import spelled
from guard_plugin.networks.convnets import CONVNET_GRAMMAR, CONVNETS, ConvNet, parse_convnet
from guard_plugin.optional import require

__all__ = ["ARCHITECTURES", "architecture_named", "build_network"]

ARCHITECTURES = (*CONVNETS, "MLP", "resnet18")

_SMALL = 64  # pixels a side

_STEMS = ("3x3", "7x7")  # behind a name

# In training mode these models return more than logits, unless they are built without auxiliary outputs.
_AUXILIARY = ("googlenet", "inception_v3")


def architecture_named(text: str) -> str:
    """Return the name of an architecture that a user writes in any case: "ResNet-18" is "resnet18".

    Hosts have other networks of such names (DC's "ResNet18" is without BatchNorm), so what their files tell is not read
    in this way. An unknown name is returned as it is.
    """
    if text.lower().startswith("convnet-"):
        return f"ConvNet-{text.lower().partition('-')[2]}"
    base, _, stem = text.rpartition("-")
    if base and stem.lower() in _STEMS:
        return f"{architecture_named(base)}-{stem.lower()}"
    return spelled(text, (*CONVNETS, "MLP", *_torchvision_names()))


def build_network(arch: str, *, channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """Build a network by name, with the initialisation that its host or torchvision leaves it at.

    Args:
        arch: One of ``ARCHITECTURES``; a ConvNet such as "ConvNet-d4-w64-batch", with any of d<DEPTH>, w<WIDTH>, a norm
            (nonorm, batch, layer, instance, group), an activation (relu, leakyrelu, sigmoid) and a pooling (avg, max,
            nopool), in any order; or a classification model of torchvision's, such as "vgg11", as it is there. Behind
            such a name, "-3x3" changes the model as SRe2L's and tiny-imagenet's scripts do: ``conv1`` becomes a 3x3
            convolution and ``maxpool`` nothing. That is the stem of a ResNet for small images; a model without these
            names, such as "mobilenet_v2", gets a convolution that has no part in its logits. "-7x7" is a ResNet's own
            stem; "resnet18" is "resnet18-3x3" up to 64x64 pixels.
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
        # Zhao et al. (2021): two hidden layers of 128 units with ReLU.
        hidden = [nn.Linear(channels * im_size[0] * im_size[1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, num_classes))
    if arch in CONVNETS or arch.startswith("ConvNet-"):
        config = CONVNETS[arch] if arch in CONVNETS else parse_convnet(arch)
        return ConvNet(config, channels=channels, num_classes=num_classes, im_size=im_size)
    theirs = _torchvision_names()
    name, stem = _name_and_stem(arch, im_size)
    if name in theirs or name == "resnet18":
        return _torchvision_model(name, stem, channels, num_classes, im_size)
    near = difflib.get_close_matches(arch, (*ARCHITECTURES, *theirs), n=3)
    raise UnusableInput(
        f"unknown architecture {arch!r}{'; close to it: ' + ', '.join(near) if near else ''}: expected one of "
        f"{', '.join(ARCHITECTURES)}; {CONVNET_GRAMMAR}; or a classification model of torchvision's by its name"
        f"{'' if theirs else ', which needs pip install guard-plugin[bench]'}"
    )


def _torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's classification models; none where it is not installed."""
    try:
        models = require("torchvision.models", needed_by="a model of torchvision's")
    except UnusableInput:
        return ()
    return tuple(models.list_models(module=models))


def _name_and_stem(arch: str, im_size: tuple[int, int]) -> tuple[str, str]:
    """Return torchvision's name of an architecture, and which stem it has."""
    name, _, stem = arch.rpartition("-")
    if stem == "3x3" or (stem == "7x7" and "resne" in name):
        return name, stem
    return arch, "3x3" if arch == "resnet18" and max(im_size) <= _SMALL else "7x7"


def _torchvision_model(arch: str, stem: str, channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """Build one of ``_torchvision_names()`` with new weights, in training mode, if it takes images of this shape."""
    changed = channels if stem == "3x3" else None
    if channels != 3 and changed is None:
        raise UnusableInput(f"torchvision's {arch} takes images of 3 channels, got {channels}: choose another --arch")
    skeleton = _skeleton(arch, num_classes, changed)
    try:
        skeleton.eval()(torch.empty(1, channels, *im_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:  # torch's own checks of shapes
        raise UnusableInput(
            f"torchvision's {arch}{f' with stem {stem}' if changed else ''} does not take images of "
            f"{im_size[0]}x{im_size[1]} pixels: {error}; choose another --arch, or images of the size it was made for"
        ) from error
    return skeleton.train() if torch.empty(0).device.type == "meta" else _new(arch, num_classes, changed)


def _new(arch: str, num_classes: int, stem_channels: int | None) -> nn.Module:
    """Build a model of torchvision's; given the channels of small images, with the hosts' stem for these."""
    plain: dict[str, Any] = {"aux_logits": False, "init_weights": True} if arch in _AUXILIARY else {}
    models = require("torchvision.models", needed_by=arch)
    network: nn.Module = models.get_model(arch, weights=None, num_classes=num_classes, **plain)
    if stem_channels is not None:
        network.conv1 = nn.Conv2d(stem_channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network


def _skeleton(arch: str, num_classes: int, stem_channels: int | None) -> nn.Module:
    """Build the model without values and without a draw from the caller's random stream."""
    try:
        with torch.device("meta"):
            return _new(arch, num_classes, stem_channels)
    except NotImplementedError:  # RegNet's constructor looks at values
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return _new(arch, num_classes, stem_channels).to("meta")
