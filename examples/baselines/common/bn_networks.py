"""Networks with BatchNorm, whose running statistics are what SRe2L and CDA recover images from.

"ConvNetBN" is the dataset condensation literature's, 128 channels wide. "ConvNetBN32-64-128" and its like name the
channels of each block: with the same blocks (3x3 convolution, BatchNorm, ReLU, 2x2 average pooling), narrow enough for
a CPU.
"""

from __future__ import annotations

import torch
from torch import nn

from common.data import DatasetInfo
from common.networks import build

WIDTHS: dict[str, tuple[int, ...]] = {
    "ConvNetBN16-32": (16, 32),
    "ConvNetBN32-64-128": (32, 64, 128),
}
BN_MODELS: tuple[str, ...] = ("ConvNetBN", *WIDTHS)


class BatchNormConvNet(nn.Module):
    """One block for each width, each of which halves the image, and a linear classifier."""

    def __init__(self, channel: int, num_classes: int, im_size: tuple[int, int], widths: tuple[int, ...]) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        # As in common.networks, 28x28 images are widened to the 32x32 that halve evenly.
        padding = 3 if im_size == (28, 28) else 1
        height, width = (side + 2 * padding - 2 for side in im_size)
        for before, after in zip((channel, *widths), widths):
            if min(height, width) < 2:
                raise ValueError(f"{len(widths)} blocks are too many for images of {im_size[0]}x{im_size[1]} pixels")
            # BatchNorm's own shift stands in for the convolution's bias.
            blocks += [nn.Conv2d(before, after, 3, padding=padding, bias=False), nn.BatchNorm2d(after)]
            blocks += [nn.ReLU(), nn.AvgPool2d(2)]
            padding, height, width = 1, height // 2, width // 2
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(widths[-1] * height * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def create_model(name: str, info: DatasetInfo) -> nn.Module:
    """A network by name, with fresh weights from torch's global random stream."""
    if name in WIDTHS:
        return BatchNormConvNet(info.channel, info.num_classes, info.im_size, WIDTHS[name])
    return build(name, info.channel, info.num_classes, info.im_size)
