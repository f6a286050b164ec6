"""What must hold for images and labels before a network sees them."""

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput

__all__ = ["check_labels", "check_pixels"]


def check_pixels(pixels: Tensor) -> None:
    """Refuse anything but finite floating-point images of shape (n >= 1, channels, height, width) in [0, 1]."""
    if pixels.dim() != 4 or not len(pixels) or not pixels.is_floating_point():
        raise UnusableInput(
            f"expected pixels of shape (n, channels, height, width) in floating point, n >= 1; "
            f"got shape {tuple(pixels.shape)} of {pixels.dtype}"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise UnusableInput(
            f"expected pixels in [0, 1], got values from {low:.4g} to {high:.4g}: attacks are measured in pixel space, "
            f"so give the images as they are and normalise inside the model (guard_plugin.evaluation.PixelModel)"
        )


def check_labels(labels: Tensor, n: int, num_classes: int | None = None, *, what: str = "labels") -> None:
    """Refuse anything but n int64 labels >= 0, and < num_classes where that is given."""
    if labels.shape != (n,) or labels.dtype != torch.int64:
        raise UnusableInput(
            f"expected {n} {what} of shape ({n},) in int64, got shape {tuple(labels.shape)} of {labels.dtype}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        bound = "" if num_classes is None else f" and < {num_classes}"
        raise UnusableInput(f"expected {what} >= 0{bound}, got values from {low} to {high}")
