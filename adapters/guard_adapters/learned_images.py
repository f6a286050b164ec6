"""Learned images as hosts store them: as their networks saw them, normalised or whitened."""

import math

import torch
from torch import Tensor

from guard_adapters.normalizations import HostDataset
from guard_plugin.errors import UnusableInput

__all__ = ["learned_images"]

_MOST = 10  # times the largest normalised pixel; learned images have some once or twice


def learned_images(images: Tensor, dataset: HostDataset, where: object) -> Tensor:
    """Return what ``where`` holds as images, in float32.

    Learned values may leave the range of normalised pixels, but not in the mean: their root mean square is at most ten
    times the largest normalised pixel, of which pixels from 0 to 255 have far more. Whitened ones are smaller.

    Raises:
        UnusableInput: If they are integers, or that large.
    """
    space = dataset.normalization
    shape = 1, len(space.mean), 1, 1
    low, high = space.to_input(torch.zeros(shape)), space.to_input(torch.ones(shape))
    size = images.double().square().mean().sqrt().item() if images.is_floating_point() else 0.0
    is_large = math.isfinite(size) and size > _MOST * max(low.abs().max().item(), high.abs().max().item())
    if is_large or not images.is_floating_point():
        found = f"values whose root mean square is {size:.4g}" if is_large else f"{images.dtype}"
        raise UnusableInput(
            f"{where}: expected images as the host's networks saw them, in floating point and normalised, which takes "
            f"pixels to {low.min():.3g} to {high.max():.3g}; got {found}. Are they pixels from 0 to 255? Then store "
            f"(pixels / 255 - mean) / std with mean={space.mean} and std={space.std}; if not, the distillation diverged"
        )
    return images.float()
