"""torchvision's classification models, checked against the images before anything is trained."""

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import nn

from guard_plugin.errors import UnusableInput

__all__ = ["resnet18", "torchvision_model", "torchvision_names"]

_SMALL = 64  # pixels a side

# In training they answer with more than logits, unless they are told not to.
_AUXILIARY = ("googlenet", "inception_v3")


def torchvision_names() -> tuple[str, ...]:
    """The names of torchvision's classification models; none where it is not installed."""
    try:
        models = _models()
    except UnusableInput:
        return ()
    return tuple(models.list_models(module=models))


def resnet18(channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """torchvision's; for images up to 64x64 with the stem that SRe2L's and Tiny-ImageNet's scripts give it."""
    network: nn.Module = _models().resnet18(weights=None, num_classes=num_classes)
    if max(im_size) <= _SMALL:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        raise UnusableInput(f"resnet18 for images above {_SMALL}x{_SMALL} takes 3 channels, got {channels}")
    return network


def torchvision_model(arch: str, channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """One of torchvision's, as it is, with new weights.

    Args:
        arch: One of ``torchvision_names()``.
        channels: Channels of the images.
        num_classes: Number of logits.
        im_size: Height and width of the images, in pixels.

    Raises:
        UnusableInput: If it does not take such images.
    """
    if channels != 3:
        raise UnusableInput(f"torchvision's {arch} takes images of 3 channels, got {channels}: choose another --arch")
    skeleton = _skeleton(arch, num_classes)
    try:
        skeleton.eval()(torch.empty(1, channels, *im_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:  # torch's own checks of shapes
        raise UnusableInput(
            f"torchvision's {arch} does not take images of {im_size[0]}x{im_size[1]} pixels: {error}; choose another "
            f"--arch, or images of the size that it was made for"
        ) from error
    return skeleton.train() if torch.get_default_device().type == "meta" else _new(arch, num_classes)


def _models() -> ModuleType:
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError as error:
        raise UnusableInput('resnet18 is torchvision\'s: pip install "guard-plugin[bench]"') from error


def _new(arch: str, num_classes: int) -> nn.Module:
    plain: dict[str, Any] = {"aux_logits": False, "init_weights": True} if arch in _AUXILIARY else {}
    network: nn.Module = _models().get_model(arch, weights=None, num_classes=num_classes, **plain)
    return network


def _skeleton(arch: str, num_classes: int) -> nn.Module:
    """The model without values, which draws no random number of the caller's."""
    try:
        with torch.device("meta"):
            return _new(arch, num_classes)
    except NotImplementedError:  # RegNet's constructor looks at values
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return _new(arch, num_classes).to("meta")
