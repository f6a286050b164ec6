"""Distilled images, to look at."""

from pathlib import Path

import torch
from torch import Tensor

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput

__all__ = ["draw"]

_LEAST_PIXELS = 32


def draw(above: DistilledSet, below: DistilledSet, file: Path) -> None:
    """Write a PNG with the images of two distilled sets, one above the other, a column per class.

    Args:
        above: The one on top.
        below: The other, of the same image size.
        file: Where to write.

    Raises:
        UnusableInput: If torchvision is not installed.
    """
    try:
        from torchvision.utils import save_image
    except ImportError as error:
        raise UnusableInput('pictures need torchvision: pip install "guard-plugin[bench]"') from error
    top = _rows(above)
    rows = torch.cat([top, torch.ones_like(top[: above.num_classes]), _rows(below)])
    save_image(_enlarged(rows), file, nrow=above.num_classes, pad_value=1.0)


def _rows(distilled: DistilledSet) -> Tensor:
    """Order the images so that each row of the grid holds one image of every class."""
    labels = distilled.labels if distilled.labels.dim() == 1 else distilled.labels.argmax(dim=1)
    by_class = [torch.nonzero(labels == c).flatten().tolist() for c in range(distilled.num_classes)]
    order = [members[i] for i in range(min(map(len, by_class))) for members in by_class]
    return distilled.pixels()[order]


def _enlarged(images: Tensor) -> Tensor:
    """Repeat pixels, so that 8x8 images can be seen."""
    factor = max(1, _LEAST_PIXELS // images.shape[-1])
    return images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
