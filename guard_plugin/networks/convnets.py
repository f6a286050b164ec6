"""The ConvNets of the distillation literature, rebuilt from their descriptions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from guard_plugin.errors import UnusableInput

__all__ = ["CONVNET_GRAMMAR", "BatchNormConvNet", "ConvNet", "ConvNetConfig", "parse_convnet"]

_NORM_LAYERS: dict[str, Callable[[int, int, int], nn.Module | None]] = {
    "none": lambda channels, height, width: None,
    "batch": lambda channels, height, width: nn.BatchNorm2d(channels),
    "layer": lambda channels, height, width: nn.LayerNorm([channels, height, width]),
    "instance": lambda channels, height, width: nn.GroupNorm(channels, channels),
    "group": lambda channels, height, width: nn.GroupNorm(4, channels),
}

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": lambda: nn.LeakyReLU(negative_slope=0.01),
    "sigmoid": nn.Sigmoid,
}

_POOLINGS: dict[str, Callable[[], nn.Module] | None] = {
    "avg": lambda: nn.AvgPool2d(2),
    "max": lambda: nn.MaxPool2d(2),
    "none": None,
}

_GROUPS = 4

CONVNET_GRAMMAR = (
    "ConvNet-d4-w64-batch, that is ConvNet with any of d<DEPTH>, w<WIDTH>, nonorm|batch|layer|instance|group, "
    "relu|leakyrelu|sigmoid and avg|max|nopool behind it"
)


@dataclass(frozen=True)
class ConvNetConfig:
    """One member of the ConvNet family of "Dataset Condensation with Gradient Matching" (Zhao et al., 2021).

    Args:
        depth: Number of blocks, each of which halves height and width where it pools.
        width: Channels of every block.
        norm: "none", "batch", "layer", "instance" (one group per channel) or "group" (4 groups).
        activation: "relu", "leakyrelu" (slope 0.01) or "sigmoid".
        pooling: "avg", "max" or "none".
    """

    depth: int = 3
    width: int = 128
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "avg"


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution, normalization, activation and 2x2 pooling, then one linear layer.

    Args:
        config: Depth, width and layers.
        channels: Channels of the images.
        num_classes: Number of logits.
        im_size: Height and width of the images, in pixels.

    Raises:
        UnusableInput: If the images are so small that the pooling leaves nothing.
    """

    def __init__(self, config: ConvNetConfig, *, channels: int, num_classes: int, im_size: tuple[int, int]) -> None:
        super().__init__()
        pooling = _POOLINGS[config.pooling]
        smallest = 2**config.depth
        if pooling and min(im_size) < smallest:
            raise UnusableInput(
                f"a ConvNet of depth {config.depth} needs images of at least {smallest}x{smallest} pixels, "
                f"got {im_size[0]}x{im_size[1]}: choose a shallower one, for instance ConvNetD1"
            )
        height, width = im_size
        layers: list[nn.Module] = []
        for block in range(config.depth):
            # The hosts pad MNIST's 28x28 images to 32x32 in the first convolution.
            padding = 3 if block == 0 and channels == 1 and (height, width) == (28, 28) else 1
            height, width = height + 2 * padding - 2, width + 2 * padding - 2
            layers.append(nn.Conv2d(channels if block == 0 else config.width, config.width, 3, padding=padding))
            norm = _NORM_LAYERS[config.norm](config.width, height, width)
            layers += [] if norm is None else [norm]
            layers.append(_ACTIVATIONS[config.activation]())
            if pooling:
                layers.append(pooling())
                height, width = height // 2, width // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.width * height * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images of shape (n, channels, height, width) to logits of shape (n, num_classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def parse_convnet(arch: str) -> ConvNetConfig:
    """Read a name of ``CONVNET_GRAMMAR``; what it does not tell is as in "ConvNet".

    Raises:
        UnusableInput: If a part is unknown, or tells what another has told already.
    """
    found: dict[str, Any] = {}
    for part in arch.split("-")[1:]:
        key, value = _setting(part)
        if key is None or key in found:
            what = "unknown" if key is None else f"a second {key}"
            raise UnusableInput(f"architecture {arch!r}: {part!r} is {what}; expected {CONVNET_GRAMMAR}")
        found[key] = value
    config = replace(ConvNetConfig(), **found)
    if config.norm == "group" and config.width % _GROUPS:
        raise UnusableInput(f"architecture {arch!r}: expected a width that {_GROUPS} groups divide, got {config.width}")
    return config


def _setting(part: str) -> tuple[str | None, Any]:
    number = re.fullmatch(r"([dw])([1-9]\d{0,4})", part)
    if number:
        return {"d": "depth", "w": "width"}[number[1]], int(number[2])
    if part in ("nonorm", "nopool"):
        return {"nonorm": "norm", "nopool": "pooling"}[part], "none"
    kinds: dict[str, Mapping[str, Any]] = {"norm": _NORM_LAYERS, "activation": _ACTIVATIONS, "pooling": _POOLINGS}
    return next((key for key, names in kinds.items() if part in names and part != "none"), None), part


class BatchNormConvNet(nn.Module):
    """Blocks of 3x3 convolution without bias, BatchNorm, ReLU and 2x2 average pooling, then one linear layer.

    Args:
        widths: Channels of each block.
        channels: Channels of the images.
        num_classes: Number of logits.
        im_size: Height and width of the images, in pixels.

    Raises:
        UnusableInput: If the images are so small that the pooling leaves nothing.
    """

    def __init__(self, widths: tuple[int, ...], *, channels: int, num_classes: int, im_size: tuple[int, int]) -> None:
        super().__init__()
        smallest = 2 ** len(widths)
        if min(im_size) < smallest:
            raise UnusableInput(
                f"{len(widths)} blocks need images of at least {smallest}x{smallest} pixels, got "
                f"{im_size[0]}x{im_size[1]}: choose ConvNetBN16-32, or a shallower network"
            )
        padding = 3 if im_size == (28, 28) else 1  # 28x28 images become 32x32, which halve evenly
        height, width = (side + 2 * padding - 2 for side in im_size)
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=padding, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU(), nn.AvgPool2d(2)]
            padding, height, width = 1, height // 2, width // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1] * height * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images of shape (n, channels, height, width) to logits of shape (n, num_classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits
