"""Differentiable augmentation (DSA: Zhao and Bilen, ICML 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F


class Draws:
    """The random numbers of one augmentation, each shaped to broadcast over a batch of images.

    With a seed (Siamese) one number serves the whole batch, and another batch with the same seed gets the same one,
    whatever its size. Without, each image gets its own, from torch's global stream, which a seed leaves alone.
    """

    def __init__(self, images: torch.Tensor, seed: int | None) -> None:
        self._device, self._count = images.device, len(images) if seed is None else 1
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def pick(self, n: int) -> int:
        """One of 0..n-1 for the whole batch."""
        return int(torch.randint(n, (1,), generator=self._generator))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        drawn = torch.rand(self._count, 1, 1, 1, generator=self._generator)
        return (low + (high - low) * drawn).to(self._device)

    def integers(self, low: int, high: int) -> torch.Tensor:
        """Of low..high, both included."""
        return torch.randint(low, high + 1, (self._count, 1, 1, 1), generator=self._generator).to(self._device)


def _color(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Brightness, saturation and contrast."""
    x = x + draws.uniform(-0.5, 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * draws.uniform(0.0, 2.0)
    level = x.mean(dim=(1, 2, 3), keepdim=True)
    return level + (x - level) * draws.uniform(0.5, 1.5)


def _pixel_grid(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The row and the column number of each pixel, broadcastable over x."""
    rows = torch.arange(x.shape[2], device=x.device).view(1, 1, -1, 1)
    cols = torch.arange(x.shape[3], device=x.device).view(1, 1, 1, -1)
    return rows, cols


def _crop(x: torch.Tensor, draws: Draws, ratio: float = 0.125) -> torch.Tensor:
    """Shift by up to an eighth of the side; what comes in is zero."""
    up, left = round(x.shape[2] * ratio), round(x.shape[3] * ratio)
    rows, cols = _pixel_grid(x)
    rows = rows + up + draws.integers(-up, up)
    cols = cols + left + draws.integers(-left, left)
    padded = F.pad(x, (left, left, up, up))
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
    return padded[image, channel, rows, cols]


def _cutout(x: torch.Tensor, draws: Draws, ratio: float = 0.5) -> torch.Tensor:
    """Blank a square of half the side around a random pixel."""
    rows, cols = _pixel_grid(x)
    height, width = round(x.shape[2] * ratio), round(x.shape[3] * ratio)
    top = draws.integers(0, x.shape[2] - 1) - height // 2
    left = draws.integers(0, x.shape[3] - 1) - width // 2
    inside = (rows >= top) & (rows < top + height) & (cols >= left) & (cols < left + width)
    return x * ~inside


def _flip(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    return torch.where(draws.uniform() < 0.5, x.flip(3), x)


def _warp(x: torch.Tensor, rows: list[list[torch.Tensor]]) -> torch.Tensor:
    """Resample x through the linear map with these entries; each is a number per image, or one for all."""
    theta = torch.stack([torch.cat([entry.flatten(1) for entry in row], dim=1) for row in rows], dim=1)
    theta = F.pad(theta, (0, 1)).expand(len(x), 2, 3)  # no translation
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def _scale(x: torch.Tensor, draws: Draws, ratio: float = 1.2) -> torch.Tensor:
    vertical, horizontal = draws.uniform(1 / ratio, ratio), draws.uniform(1 / ratio, ratio)
    zero = torch.zeros_like(vertical)
    return _warp(x, [[horizontal, zero], [zero, vertical]])


def _rotate(x: torch.Tensor, draws: Draws, degrees: float = 15.0) -> torch.Tensor:
    angle = draws.uniform(-math.radians(degrees), math.radians(degrees))
    return _warp(x, [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


AUGMENTATIONS: dict[str, Callable[[torch.Tensor, Draws], torch.Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}


def parse_strategy(text: str) -> list[str]:
    """The augmentations in a strategy such as color_crop_flip; an empty list for none."""
    names = [] if text.lower() in ("", "none") else text.split("_")
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"unknown augmentation {unknown[0]!r}; there are {', '.join(AUGMENTATIONS)}")
    return names


def diff_augment(images: torch.Tensor, strategy: str, seed: int | None = None) -> torch.Tensor:
    """One augmentation of the strategy, picked at random, applied to a batch; differentiable in the images.

    The same seed gives the same augmentation with the same parameters to every image of every batch.
    """
    names = parse_strategy(strategy)
    if not names:
        return images
    draws = Draws(images, seed)
    return AUGMENTATIONS[names[draws.pick(len(names))]](images, draws)
