"""Random views of images: crops, mirror images and CutMix, distributed as in the hosts of the SRe2L family."""

import math

import torch
from torch import Tensor

from guard_plugin.distilled import Mix, View

__all__ = ["draw_view"]

_ATTEMPTS = 10  # crops that are drawn for an image; the first that fits into the image is taken
_RATIOS = (3 / 4, 4 / 3)  # the least and the greatest width over height of a crop


def draw_view(n: int, size: tuple[int, int], min_scale: float) -> View:
    """Draw crops, mirror images and a CutMix rectangle, from torch's global stream on the CPU.

    Crops are distributed as torchvision's ``RandomResizedCrop`` draws them, and rectangles as CutMix with Beta(1, 1).

    Args:
        n: The number of images.
        size: Height and width of the images, in pixels.
        min_scale: The least part of an image's area that a crop has, > 0.
    """
    crops = _draw_crops(n, size, min_scale)
    flips = torch.rand(n) < 0.5
    own = torch.rand(()).item()
    return View(crops, flips, Mix(torch.randperm(n), own, _draw_box(size, own)))


def _draw_crops(n: int, size: tuple[int, int], min_scale: float) -> Tensor:
    """Return top, left, height and width of n crops as parts of the image's sides, of shape (n, 4)."""
    height, width = size
    area = height * width * (min_scale + (1 - min_scale) * torch.rand(n, _ATTEMPTS))
    low, high = (math.log(ratio) for ratio in _RATIOS)
    ratio = (low + (high - low) * torch.rand(n, _ATTEMPTS)).exp()
    columns, rows = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (columns >= 1) & (columns <= width) & (rows >= 1) & (rows <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    rows, columns = (sides.gather(1, first).squeeze(1) for sides in (rows, columns))
    places = torch.rand(2, n)
    tops = (places[0] * (height - rows + 1)).floor()
    lefts = (places[1] * (width - columns + 1)).floor()
    parts = torch.stack([tops / height, lefts / width, rows / height, columns / width], dim=1)
    return torch.where(fits.any(dim=1, keepdim=True), parts, torch.tensor(_central_crop(size)))


def _central_crop(size: tuple[int, int]) -> list[float]:
    """Return the largest central crop of the allowed ratio nearest the image's, for images that no drawn crop fits."""
    height, width = size
    rows, columns = min(height, round(width / _RATIOS[0])), min(width, round(height * _RATIOS[1]))
    return [(height - rows) // 2 / height, (width - columns) // 2 / width, rows / height, columns / width]


def _draw_box(size: tuple[int, int], own: float) -> tuple[int, int, int, int]:
    """Draw a rectangle of the share 1 - own of the image around a random pixel, cut off at the border."""
    spans = []
    for side in size:
        half = int(side * math.sqrt(1 - own)) // 2
        centre = int(torch.randint(side, ()))
        spans.append((max(centre - half, 0), min(centre + half, side)))
    (top, bottom), (left, right) = spans
    return top, left, bottom, right
