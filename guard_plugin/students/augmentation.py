"""Differentiable Siamese augmentation (DSA: Zhao and Bilen, ICML 2021), which hosts train their students with.

Written from the method's definition and from the hosts' ``DiffAugment`` with the defaults of ``ParamDiffAug``: one kind
of the strategy is drawn per batch ("aug_mode S"), with parameters of its own for every image. Draws come from torch's
global stream on the CPU, in the hosts' order, so that the same seed gives the same augmentation as theirs.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from guard_plugin.errors import UnusableInput

__all__ = ["DSA_STRATEGY", "augment", "check_strategy"]

DSA_STRATEGY = "color_crop_cutout_flip_scale_rotate"

_CROP = 1 / 8  # the largest shift, as a part of the side
_CUTOUT = 1 / 2  # the side of the blanked square, as a part of the image's side
_SCALE = 1.2  # the largest enlargement; the smallest is its inverse
_DEGREES = 15.0  # the largest rotation, either way


def augment(images: Tensor, strategy: str) -> Tensor:
    """Apply one kind of a strategy, drawn at random, to images of shape (n, channels, height, width) in input space."""
    kinds = check_strategy(strategy)
    return _KINDS[kinds[int(torch.randint(len(kinds), (1,)))]](images)


def check_strategy(strategy: str) -> list[str]:
    """Return the kinds of a strategy, or refuse unknown ones by ``UnusableInput``."""
    kinds = strategy.split("_")
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise UnusableInput(f"expected an augmentation of {', '.join(_KINDS)}, joined by '_', got {unknown[0]!r}")
    return kinds


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Draw a number per image, of shape (n, 1, 1, 1)."""
    return (low + (high - low) * torch.rand(len(images))).to(images).view(-1, 1, 1, 1)


def _integers(images: Tensor, low: int, high: int) -> Tensor:
    """Draw an integer from low to high (included) per image, of shape (n, 1, 1)."""
    return torch.randint(low, high + 1, (len(images),)).to(images.device).view(-1, 1, 1)


def _color(images: Tensor) -> Tensor:
    """Change brightness, saturation (distance from the pixel's mean over channels) and contrast (from the image's)."""
    images = images + _uniform(images, -0.5, 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * _uniform(images, 0.0, 2.0) + grey
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - level) * _uniform(images, 0.5, 1.5) + level


def _crop(images: Tensor) -> Tensor:
    """Shift each image by up to an eighth of the side, and fill with zero."""
    n, _, height, width = images.shape
    down, right = _rounded(height * _CROP), _rounded(width * _CROP)
    padded = F.pad(images, (right, right, down, down))  # any shifted window lies inside
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + down + _integers(images, -down, down)
    columns = torch.arange(width, device=images.device).view(1, 1, -1) + right + _integers(images, -right, right)
    image = torch.arange(n, device=images.device).view(-1, 1, 1)
    # Advanced indices around a slice put their own dimensions first.
    return padded[image, :, rows, columns].permute(0, 3, 1, 2)


def _cutout(images: Tensor) -> Tensor:
    """Blank a square of half the side around a random place, cut off at the border."""
    top, height = _cut(images, images.shape[2])
    left, width = _cut(images, images.shape[3])
    rows = torch.arange(images.shape[2], device=images.device).view(1, -1, 1)
    columns = torch.arange(images.shape[3], device=images.device).view(1, 1, -1)
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    return images * (~inside).unsqueeze(1)


def _cut(images: Tensor, side: int) -> tuple[Tensor, int]:
    """Return the first coordinate of the blanked part per image, of shape (n, 1, 1), and its length."""
    length = _rounded(side * _CUTOUT)
    # The centre of an even length lies between pixels: it has one place more.
    return _integers(images, 0, side - length % 2) - length // 2, length


def _flip(images: Tensor) -> Tensor:
    """Mirror every other image on average, left to right."""
    return torch.where(_uniform(images, 0.0, 1.0) < 0.5, images.flip(3), images)


def _scale(images: Tensor) -> Tensor:
    """Shrink or enlarge width and height, each by a factor of its own."""
    horizontal, vertical = (_uniform(images, 1 / _SCALE, _SCALE) for _ in range(2))
    zero = torch.zeros_like(horizontal)
    return _warp(images, [horizontal, zero, zero, zero, vertical, zero])


def _rotate(images: Tensor) -> Tensor:
    """Turn each image around its centre."""
    angle = _uniform(images, -math.radians(_DEGREES), math.radians(_DEGREES))
    zero, sin, cos = torch.zeros_like(angle), angle.sin(), angle.cos()
    return _warp(images, [cos, -sin, zero, sin, cos, zero])


def _warp(images: Tensor, entries: list[Tensor]) -> Tensor:
    """Resample through the affine map with these 2 x 3 entries, each of shape (n, 1, 1, 1); zero outside."""
    theta = torch.cat(entries, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, align_corners=True)


def _rounded(value: float) -> int:
    """Round a half up, as the hosts do; Python's round() would go to the even neighbour."""
    return int(value + 0.5)


_KINDS = {"color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate}
