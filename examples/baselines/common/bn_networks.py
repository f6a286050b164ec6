"""Networks with BatchNorm, whose running statistics are what SRe2L and CDA recover images from.

"ConvNetBN" is the dataset condensation literature's, 128 channels wide. "ConvNetBN32-64-128" and its like name the
channels of each block: with the same blocks (3x3 convolution, BatchNorm, ReLU, 2x2 average pooling), narrow enough for
a CPU.
"""

from __future__ import annotations

from torch import nn

from common.data import DatasetInfo
from common.networks import ConvNet, build

WIDTHS: dict[str, tuple[int, ...]] = {
    "ConvNetBN16-32": (16, 32),
    "ConvNetBN32-64-128": (32, 64, 128),
}
BN_MODELS: tuple[str, ...] = ("ConvNetBN", *WIDTHS)


def create_model(name: str, info: DatasetInfo) -> nn.Module:
    """A network by name, with fresh weights from torch's global random stream."""
    if name in WIDTHS:
        # BatchNorm's own shift stands in for the convolution's bias.
        return ConvNet(info.channel, info.num_classes, info.im_size, WIDTHS[name], "BN", bias=False)
    return build(name, info.channel, info.num_classes, info.im_size)
