"""The networks that hosts evaluate distilled sets with, rebuilt from their descriptions."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from guard_plugin.errors import UnusableInput

__all__ = ["ARCHITECTURES", "MLP", "BatchNormConvNet", "ConvNet", "ConvNetConfig", "build_network"]

_NORM_LAYERS: dict[str, Callable[[int, int, int], nn.Module | None]] = {
    "none": lambda channels, height, width: None,
    "batch": lambda channels, height, width: nn.BatchNorm2d(channels),
    "layer": lambda channels, height, width: nn.LayerNorm([channels, height, width]),
    "instance": lambda channels, height, width: nn.GroupNorm(channels, channels),
    "group": lambda channels, height, width: nn.GroupNorm(4, channels),
}


_SMALL = 64  # pixels a side


@dataclass(frozen=True)
class ConvNetConfig:
    """One member of the ConvNet family of "Dataset Condensation with Gradient Matching" (Zhao et al., 2021).

    Args:
        depth: Number of blocks, each of which halves height and width.
        width: Channels of every block.
        norm: "none", "batch", "layer", "instance" (one group per channel) or "group" (4 groups).
    """

    depth: int = 3
    width: int = 128
    norm: str = "instance"


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution, normalization, ReLU and 2x2 average pooling, then one linear layer.

    Args:
        config: Depth, width and normalization.
        channels: Channels of the images.
        num_classes: Number of logits.
        im_size: Height and width of the images, in pixels.

    Raises:
        UnusableInput: If the images are so small that the pooling leaves nothing.
    """

    def __init__(self, config: ConvNetConfig, *, channels: int, num_classes: int, im_size: tuple[int, int]) -> None:
        super().__init__()
        smallest = 2**config.depth
        if min(im_size) < smallest:
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
            layers += [nn.ReLU(), nn.AvgPool2d(2)]
            height, width = height // 2, width // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.width * height * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images of shape (n, channels, height, width) to logits of shape (n, num_classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


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


def _resnet18(channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """torchvision's; for images up to 64x64 with the stem that SRe2L's and Tiny-ImageNet's scripts give it."""
    try:
        models = importlib.import_module("torchvision.models")
    except ModuleNotFoundError as error:
        raise UnusableInput('resnet18 is torchvision\'s: pip install "guard-plugin[bench]"') from error
    network: nn.Module = models.resnet18(weights=None, num_classes=num_classes)
    if max(im_size) <= _SMALL:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        raise UnusableInput(f"resnet18 for images above {_SMALL}x{_SMALL} takes 3 channels, got {channels}")
    return network


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
    """Build a network by the name that its host gives it, with the initialisation that the host leaves it at.

    Args:
        arch: One of ``ARCHITECTURES``.
        channels: Channels of the images.
        num_classes: Number of logits.
        im_size: Height and width of the images, in pixels.

    Returns:
        A new network, on the CPU, in training mode.

    Raises:
        UnusableInput: If there is no such architecture, the images are too small for it, or torchvision, which has it,
            is not installed.
    """
    if arch == "MLP":
        return MLP(channels=channels, num_classes=num_classes, im_size=im_size)
    if arch in _WIDTHS:
        return BatchNormConvNet(_WIDTHS[arch], channels=channels, num_classes=num_classes, im_size=im_size)
    if arch == _RESNET18:
        return _resnet18(channels, num_classes, im_size)
    if arch not in _CONVNETS:
        raise UnusableInput(f"unknown architecture {arch!r}: expected one of {', '.join(ARCHITECTURES)}")
    return ConvNet(_CONVNETS[arch], channels=channels, num_classes=num_classes, im_size=im_size)
