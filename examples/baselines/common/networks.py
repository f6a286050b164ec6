"""The networks of this baseline: an MLP, and the plain ConvNet of the dataset condensation literature by name.

A ConvNet is `depth` blocks of 3x3 convolution, normalisation, ReLU and 2x2 average pooling, and a linear classifier.
"ConvNet" has depth 3, width 128 and one normalisation group per channel (what the papers call instance norm); a suffix
changes one of them: D1..D4 the depth, W32..W256 the width, BN, IN, GN, LN or NN (none) the normalisation.
"""

from __future__ import annotations

import torch
from torch import nn

from common.data import DatasetInfo

CONVNETS: dict[str, dict[str, tuple[int, ...] | str]] = {
    "ConvNet": {},
    **{f"ConvNetD{depth}": {"widths": (128,) * depth} for depth in (1, 2, 3, 4)},
    **{f"ConvNetW{width}": {"widths": (width,) * 3} for width in (32, 64, 128, 256)},
    **{f"ConvNet{norm}": {"norm": norm} for norm in ("BN", "IN", "GN", "LN", "NN")},
}
MODELS: tuple[str, ...] = ("MLP", *CONVNETS)
GROUPS = 4  # of the variant "GN"


class MLP(nn.Module):
    """Two hidden layers of 128 units."""

    def __init__(self, channel: int, num_classes: int, im_size: tuple[int, int], width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channel * im_size[0] * im_size[1], width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class ConvNet(nn.Module):
    """A convolutional block for each width, each of which halves the image, and a linear classifier."""

    def __init__(
        self,
        channel: int,
        num_classes: int,
        im_size: tuple[int, int],
        widths: tuple[int, ...] = (128, 128, 128),
        norm: str = "IN",
        bias: bool = True,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        shape, channels = im_size, channel
        for block, width in enumerate(widths):
            # As in the papers' networks, 28x28 grey images are widened to the 32x32 that halve evenly.
            padding = 3 if block == 0 and channel == 1 and im_size == (28, 28) else 1
            shape = (shape[0] + 2 * padding - 2, shape[1] + 2 * padding - 2)
            if min(shape) < 2:
                raise ValueError(f"{len(widths)} blocks are too many for images of {im_size[0]}x{im_size[1]} pixels")
            blocks += [nn.Conv2d(channels, width, 3, padding=padding, bias=bias), *make_norm(norm, width, shape)]
            blocks += [nn.ReLU(), nn.AvgPool2d(2)]
            shape, channels = (shape[0] // 2, shape[1] // 2), width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels * shape[0] * shape[1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def make_norm(norm: str, width: int, shape: tuple[int, int]) -> list[nn.Module]:
    """The normalisation layer that a suffix names, in a list that is empty for none."""
    if norm == "NN":
        return []
    if norm == "BN":
        return [nn.BatchNorm2d(width)]
    if norm == "LN":
        return [nn.LayerNorm((width, *shape))]
    return [nn.GroupNorm({"IN": width, "GN": GROUPS}[norm], width)]


def build(model: str, channel: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """A network by name, with fresh weights from torch's global random stream."""
    if model == "MLP":
        return MLP(channel, num_classes, im_size)
    if model not in CONVNETS:
        raise ValueError(f"unknown model {model!r}; there are {', '.join(MODELS)}")
    return ConvNet(channel, num_classes, im_size, **CONVNETS[model])


def get_eval_model(model: str) -> str:
    """The model to evaluate with: without BatchNorm, whose statistics a synthetic set is too small to estimate."""
    return model.removesuffix("BN")


def get_network(model: str, info: DatasetInfo, seed: int, device: str) -> nn.Module:
    """A network with random weights. It seeds torch's global random stream, as training it goes on from there."""
    torch.manual_seed(seed)
    return build(model, info.channel, info.num_classes, info.im_size).to(device)
