"""Views of distilled images in 8 bits, cropped and resized by Pillow as the hosts of the SRe2L family do it.

These hosts train on JPEG files, which Pillow crops and resizes in 8 bits. The same is done here, so that a view of a
stored soft label is, pixel for pixel, what the teacher saw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard_plugin.distilled import DistilledSet, Mix, View
from guard_plugin.errors import UnusableInput
from guard_plugin.optional import require
from guard_plugin.versions import strict_zip

__all__ = ["MIXES", "EightBitImages", "ViewDrawing", "draw_view"]

MIXES = ("cutmix", "mixup", "none")
"""The ways to mix the images of a batch."""

_ATTEMPTS = 10  # crops that are drawn for an image; the first that fits into the image is taken
_RATIOS = (3 / 4, 4 / 3)  # the least and the greatest width over height of a crop
_ROUNDING = 1e-3  # in 8-bit levels: images are kept normalised, in float32


class EightBitImages:
    """The images of a distilled set as they were in their files.

    Args:
        distilled: A set whose pixels are multiples of 1/255.

    Raises:
        UnusableInput: If the pixels are not multiples of 1/255, or Pillow is not installed.
    """

    def __init__(self, distilled: DistilledSet) -> None:
        levels = distilled.normalization.to_pixels(distilled.images.cpu()) * 255
        rounded = levels.round()
        off = float((levels - rounded).abs().max())
        if off > _ROUNDING or float(rounded.min()) < 0 or float(rounded.max()) > 255:
            raise UnusableInput(
                f"expected 8-bit images, as recovered ones are, got values between the 8-bit levels or beyond them (up "
                f"to {off:.2g} of a level from the next one): train students by another recipe, such as --recipe dc"
            )
        self.distilled = distilled
        self.size = (int(levels.shape[2]), int(levels.shape[3]))
        arrays = rounded.to(torch.uint8).permute(0, 2, 3, 1).numpy()
        pillow = require("PIL.Image", needed_by="a recipe that crops 8-bit images")
        self._images = [pillow.fromarray(array[:, :, 0] if array.shape[2] == 1 else array) for array in arrays]
        self._bilinear = pillow.Resampling.BILINEAR

    def __len__(self) -> int:
        return len(self._images)

    def views(self, indices: Tensor, view: View) -> Tensor:
        """Return what a network sees of the images with these numbers, of shape (n,), in int64.

        Returns:
            Shape (n, channels, height, width), in the host's input space, on the CPU.

        Raises:
            UnusableInput: If the view reaches beyond the images.
        """
        crops = [self._crop(index, crop) for index, crop in strict_zip(indices.tolist(), view.crops.tolist())]
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        pixels = torch.where(view.flips.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        seen = self.distilled.normalization.to_input(pixels)
        return seen if view.mix is None else self._mixed(seen, view.mix)

    def _crop(self, index: int, crop: list[float]) -> Any:
        """Return the enlarged crop of one image, of shape (height, width, channels), uint8."""
        # Crops were computed from whole pixels; what is stored of them is rounded to float32. Pillow fills with black
        # where a crop reaches beyond the image, as the hosts' RandomCrop(padding=4) does.
        top, left, rows, columns = (round(part * side) for part, side in strict_zip(crop, self.size * 2))
        part = self._images[index].crop((left, top, left + columns, top + rows))
        array = np.asarray(part.resize(self.size[::-1], self._bilinear))
        return array[:, :, None] if array.ndim == 2 else array

    def _mixed(self, seen: Tensor, mix: Mix) -> Tensor:
        if mix.box is None:
            return mix.own * seen + (1 - mix.own) * seen[mix.order]
        top, left, bottom, right = mix.box
        if bottom > self.size[0] or right > self.size[1]:
            raise UnusableInput(
                f"expected views of {self.size[0]}x{self.size[1]} pixels, got one that mixes up to row {bottom} and "
                f"column {right}: soft labels of other images, or of another --input-size"
            )
        mixed = seen.clone()
        mixed[:, :, top:bottom, left:right] = seen[mix.order, :, top:bottom, left:right]
        return mixed


@dataclass(frozen=True)
class ViewDrawing:
    """How views are drawn, from torch's global stream on the CPU.

    Args:
        min_scale: The least part of an image's area that a crop has, in (0, 1]; crops are distributed as torchvision's
            ``RandomResizedCrop`` draws them.
        shift: Where above 0, the whole image is shifted by up to so many pixels in place of being cropped, and filled
            with black, as torchvision's ``RandomCrop`` with this padding does.
        mix: One of ``MIXES``, for the whole batch: a rectangle of each image, or the whole image, comes from another.
        mix_alpha: The share of the image itself has the distribution Beta(mix_alpha, mix_alpha), > 0.
    """

    min_scale: float
    shift: int = 0
    mix: str = "cutmix"
    mix_alpha: float = 1.0


def draw_view(n: int, size: tuple[int, int], drawing: ViewDrawing) -> View:
    """Draw crops, mirror images and a mixture for n images of ``size``, height and width in pixels."""
    crops = _draw_shifts(n, size, drawing.shift) if drawing.shift else _draw_crops(n, size, drawing.min_scale)
    flips = torch.rand(n) < 0.5
    if drawing.mix == "none":
        return View(crops, flips)
    alpha = drawing.mix_alpha
    # Beta(1, 1) is uniform; torch draws a uniform number from the stream in another way than a Beta.
    own = float(torch.rand(()) if alpha == 1 else torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(n)
    return View(crops, flips, Mix(order, own, _draw_box(size, own) if drawing.mix == "cutmix" else None))


def _draw_shifts(n: int, size: tuple[int, int], shift: int) -> Tensor:
    """Return top, left, height and width of n shifted images as parts of the image's sides, of shape (n, 4)."""
    places = torch.randint(-shift, shift + 1, (n, 2)) / torch.tensor(size)
    return torch.cat([places, torch.ones(n, 2)], dim=1)


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
    # Where no drawn crop fits: the largest central crop of the allowed ratio nearest the image's.
    most, widest = min(height, round(width / _RATIOS[0])), min(width, round(height * _RATIOS[1]))
    central = [(height - most) // 2 / height, (width - widest) // 2 / width, most / height, widest / width]
    return torch.where(fits.any(dim=1, keepdim=True), parts, torch.tensor(central))


def _draw_box(size: tuple[int, int], own: float) -> tuple[int, int, int, int]:
    """Draw a rectangle of the share 1 - own of the image around a random pixel, cut off at the border."""
    spans = []
    for side in size:
        half = int(side * math.sqrt(1 - own)) // 2
        centre = int(torch.randint(side, ()))
        spans.append((max(centre - half, 0), min(centre + half, side)))
    (top, bottom), (left, right) = spans
    return top, left, bottom, right
