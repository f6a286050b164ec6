"""torchvision's classification models, checked against the images before anything is trained."""

from typing import Any

import torch
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.optional import require

__all__ = ["resnet18", "torchvision_model", "torchvision_names"]

_SMALL = 64  # pixels a side

# In training mode these models return more than logits, unless they are built without auxiliary outputs.
_AUXILIARY = ("googlenet", "inception_v3")


def torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's classification models; none where it is not installed."""
    try:
        models = require("torchvision.models", needed_by="a model of torchvision's")
    except UnusableInput:
        return ()
    return tuple(models.list_models(module=models))


def resnet18(channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """Build torchvision's ResNet-18; for images up to 64x64, with the stem that SRe2L's scripts give it."""
    network = _new("resnet18", num_classes)
    if max(im_size) <= _SMALL:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        raise UnusableInput(f"resnet18 for images above {_SMALL}x{_SMALL} takes 3 channels, got {channels}")
    return network


def torchvision_model(arch: str, channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """Build one of ``torchvision_names()`` with new weights, in training mode, if it takes images of this shape."""
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


def _new(arch: str, num_classes: int) -> nn.Module:
    plain: dict[str, Any] = {"aux_logits": False, "init_weights": True} if arch in _AUXILIARY else {}
    models = require("torchvision.models", needed_by=arch)
    network: nn.Module = models.get_model(arch, weights=None, num_classes=num_classes, **plain)
    return network


def _skeleton(arch: str, num_classes: int) -> nn.Module:
    """Build the model without values and without a draw from the caller's random stream."""
    try:
        with torch.device("meta"):
            return _new(arch, num_classes)
    except NotImplementedError:  # RegNet's constructor looks at values
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return _new(arch, num_classes).to("meta")
