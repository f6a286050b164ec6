"""Images in pixel space with their labels, identified by a hash."""

import hashlib
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from guard_plugin.datasets.checks import check_labels, check_pixels
from guard_plugin.errors import UnusableInput

__all__ = ["ImageSet", "check_count", "images_from_tensors", "tensors_sha256"]


@dataclass(frozen=True)
class ImageSet:
    """Images in pixel space with their labels.

    Args:
        name: The name of the data set.
        pixels: Shape (n, channels, height, width), float32, in [0, 1].
        labels: Shape (n,), int64.
        num_classes: The number of classes of the data set.
        sha256: The hash of these images' values before division, and of their labels, in this order.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    num_classes: int
    sha256: str


def images_from_tensors(pixels: Tensor, labels: Tensor, n_examples: int | None = None) -> ImageSet:
    """Make an image set of the caller's own tensors.

    Args:
        pixels: Shape (n, channels, height, width), floating point, in [0, 1].
        labels: Shape (n,), int64.
        n_examples: How many of the first images to take; all by default.

    Returns:
        The images on the CPU. The number of classes is taken to be the highest label + 1.

    Raises:
        UnusableInput: If a shape, type or range is another, or ``n_examples`` is out of range.
    """
    check_pixels(pixels)
    check_labels(labels, len(pixels))
    n = check_count(n_examples, len(pixels), "the given tensors")
    pixels, labels = pixels[:n].detach().cpu().float(), labels[:n].cpu()
    return ImageSet("tensors", pixels, labels, int(labels.max()) + 1, tensors_sha256(pixels, labels))


def tensors_sha256(*tensors: Tensor) -> str:
    """Compute the SHA-256 over types, shapes and values of the tensors, in hexadecimal."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def check_count(n_examples: int | None, available: int, where: str) -> int:
    """Return the number of examples to take, and refuse a number that ``where`` does not hold; None takes all."""
    if not available:
        raise UnusableInput(f"expected images in {where}, found none")
    if n_examples is not None and not 1 <= n_examples <= available:
        raise UnusableInput(f"expected n_examples from 1 to {available}, which is what {where} holds; got {n_examples}")
    return n_examples or available
