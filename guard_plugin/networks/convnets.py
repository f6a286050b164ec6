"""The ConvNets of the distillation literature, rebuilt from their descriptions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from guard_plugin.errors import UnusableInput

__all__ = ["CONVNETS", "CONVNET_GRAMMAR", "ConvNet", "ConvNetConfig", "parse_convnet"]

_GROUPS = 4

_NORM_LAYERS: dict[str, Callable[[int, int, int], nn.Module | None]] = {
    "none": lambda channels, height, width: None,
    "batch": lambda channels, height, width: nn.BatchNorm2d(channels),
    "layer": lambda channels, height, width: nn.LayerNorm([channels, height, width]),
    "instance": lambda channels, height, width: nn.GroupNorm(channels, channels),
    "group": lambda channels, height, width: nn.GroupNorm(_GROUPS, channels),
}

# The slope of LeakyReLU is torch's default, 0.01.
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leakyrelu": nn.LeakyReLU, "sigmoid": nn.Sigmoid}

_POOLINGS: dict[str, Callable[[int], nn.Module] | None] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d, "none": None}

_SIDES = {"d": "depth", "w": "width"}
_KINDS: dict[str, Mapping[str, Any]] = {"norm": _NORM_LAYERS, "activation": _ACTIVATIONS, "pooling": _POOLINGS}
_SETTINGS = {name: (kind, name) for kind, names in _KINDS.items() for name in names if name != "none"}
_SETTINGS |= {"nonorm": ("norm", "none"), "nopool": ("pooling", "none")}

CONVNET_GRAMMAR = (
    "ConvNet-d4-w64-batch, that is ConvNet with any of d<DEPTH>, w<WIDTH>, nonorm|batch|layer|instance|group, "
    "relu|leakyrelu|sigmoid and avg|max|nopool behind it"
)


@dataclass(frozen=True)
class ConvNetConfig:
    """One member of the ConvNet family of "Dataset Condensation with Gradient Matching" (Zhao et al., 2021).

    ``widths`` are the channels of each block; norm, activation and pooling are keys of the tables above.
    """

    widths: tuple[int, ...] = (128, 128, 128)
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "avg"
    bias: bool = True


CONVNETS = {
    "ConvNet": ConvNetConfig(),
    **{f"ConvNetD{depth}": ConvNetConfig((128,) * depth) for depth in (1, 2, 3, 4)},
    **{f"ConvNetW{width}": ConvNetConfig((width,) * 3) for width in (32, 64, 128, 256)},
    # ConvNetBN has BatchNorm, ConvNetAS the activation sigmoid, ConvNetMP max pooling, and so on.
    **{f"ConvNet{norm[0].upper()}N": ConvNetConfig(norm=norm) for norm in _NORM_LAYERS},
    **{f"ConvNetA{name[0].upper()}": ConvNetConfig(activation=name) for name in ("sigmoid", "relu", "leakyrelu")},
    **{f"ConvNet{name[0].upper()}P": ConvNetConfig(pooling=name) for name in ("none", "max", "avg")},
    # The networks of examples/baselines, narrow enough for a CPU.
    "ConvNetBN16-32": ConvNetConfig((16, 32), norm="batch", bias=False),
    "ConvNetBN32-64-128": ConvNetConfig((32, 64, 128), norm="batch", bias=False),
}
"""The ConvNets by the names that hosts give them."""


class ConvNet(nn.Module):
    """Blocks of 3x3 convolution, normalization, activation and 2x2 pooling, then one linear layer."""

    def __init__(self, config: ConvNetConfig, *, channels: int, num_classes: int, im_size: tuple[int, int]) -> None:
        super().__init__()
        pooling = _POOLINGS[config.pooling]
        smallest = 2 ** len(config.widths)
        if pooling and min(im_size) < smallest:
            raise UnusableInput(
                f"expected images of at least {smallest}x{smallest} pixels for a ConvNet of {len(config.widths)} "
                f"blocks, got {im_size[0]}x{im_size[1]}: choose one of fewer blocks, such as ConvNetD1"
            )
        # Hosts widen MNIST's images of 28x28 pixels to 32x32, which halve evenly. The baselines, whose convolutions
        # have no bias, widen images of three channels too.
        padding = 3 if im_size == (28, 28) and (channels == 1 or not config.bias) else 1
        height, width = im_size
        layers: list[nn.Module] = []
        for before, after in zip((channels, *config.widths), config.widths):
            height, width = height + 2 * padding - 2, width + 2 * padding - 2
            layers.append(nn.Conv2d(before, after, 3, padding=padding, bias=config.bias))
            norm = _NORM_LAYERS[config.norm](after, height, width)
            layers += [] if norm is None else [norm]
            layers.append(_ACTIVATIONS[config.activation]())
            if pooling:
                layers.append(pooling(2))
                height, width = height // 2, width // 2
            padding = 1
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.widths[-1] * height * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images of shape (n, channels, height, width) to logits of shape (n, num_classes)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def parse_convnet(arch: str) -> ConvNetConfig:
    """Read a name of ``CONVNET_GRAMMAR``; what the name leaves out is as in "ConvNet"."""
    found: dict[str, Any] = {}
    for part in arch.split("-")[1:]:
        number = re.fullmatch(r"([dw])([1-9]\d{0,4})", part)
        key, value = (_SIDES[number[1]], int(number[2])) if number else _SETTINGS.get(part) or (None, part)
        if key is None or key in found:
            what = "unknown" if key is None else f"a second {key}"
            raise UnusableInput(f"architecture {arch!r}: {part!r} is {what}; expected {CONVNET_GRAMMAR}")
        found[key] = value
    depth, width = found.pop("depth", 3), found.pop("width", 128)
    config = ConvNetConfig((width,) * depth, **found)
    if config.norm == "group" and width % _GROUPS:
        raise UnusableInput(f"architecture {arch!r}: expected a width that {_GROUPS} groups divide, got {width}")
    return config
