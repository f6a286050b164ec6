"""Images in pixel space with their labels, identified by a hash, and what must hold before a network sees them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.quantities import not_pixels

__all__ = [
    "ImageSet",
    "check_chosen",
    "check_count",
    "check_labels",
    "check_pixels",
    "images_from_tensors",
    "tensors_sha256",
]

# Beyond both, the order of the images has to do with their classes: squared distance over that of a random choice, and
# the share of the chosen images that would have to be of other classes.
_MOST_TIMES_RANDOM = 10
_MOST_ELSEWHERE = 0.1


@dataclass(frozen=True)
class ImageSet:
    """Images in pixel space with their labels.

    Args:
        name: The name of the data set.
        pixels: Shape (n, channels, height, width), float32, in [0, 1].
        labels: Shape (n,), int64.
        num_classes: The number of classes of the data set.
        sha256: The hash of these images' values before division, and of their labels, in this order.
        class_names: The names of the classes, in the order of their numbers, where folders give them.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    num_classes: int
    sha256: str
    class_names: tuple[str, ...] = ()


def images_from_tensors(pixels: Tensor, labels: Tensor, n_examples: int | None = None) -> ImageSet:
    """Make an image set of the caller's own tensors.

    Args:
        pixels: Shape (n, channels, height, width), floating point, in [0, 1].
        labels: Shape (n,), int64.
        n_examples: How many of the first images to take; all by default. Images that are sorted by class are refused.

    Returns:
        The images on the CPU. The number of classes is taken to be the highest label + 1.

    Raises:
        UnusableInput: If a shape, type or range is another, ``n_examples`` is out of range, or the first images show
            other classes than all of them.
    """
    check_pixels(pixels)
    check_labels(labels, len(pixels))
    n = check_count(n_examples, len(pixels), "the given tensors")
    labels = labels.cpu()
    check_chosen(labels[:n], labels, "the given tensors")
    pixels, labels = pixels[:n].detach().cpu().float(), labels[:n]
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


def check_chosen(chosen: Tensor, labels: Tensor, where: str) -> None:
    """Refuse to take some of the images in ``where`` for all of them, if their order has to do with their classes.

    Over the classes, the squared distance between the counts of n chosen images and n times the shares p of all N is
    n (1 - sum p^2) (N - n) / (N - 1) in the mean of random choices.

    Args:
        chosen: The labels of the n chosen images, int64.
        labels: The labels of all N images, among them the chosen ones.
        where: What messages call the images.

    Raises:
        UnusableInput: If the distance is more than ten times that, and a tenth of the images would have to be others.
    """
    (classes, counts), n = torch.unique(labels, return_counts=True), len(chosen)
    found = torch.searchsorted(classes, chosen).bincount(minlength=len(classes))
    shares = counts.double() / len(labels)
    off = found - n * shares
    random = n * (1 - (shares**2).sum()) * (len(labels) - n) / max(1, len(labels) - 1)
    elsewhere = float(off.abs().sum()) / (2 * n)
    if elsewhere > _MOST_ELSEWHERE and float((off**2).sum()) > _MOST_TIMES_RANDOM * float(random):
        raise UnusableInput(
            f"expected the {n} examples that were chosen of {where} to show its classes as all {len(labels)} do, got "
            f"{int((found > 0).sum())} of {len(classes)} classes, and {100 * elsewhere:.0f} % of them would have to be "
            f"of other classes: are they sorted by class? Shuffle images and labels together, or take all of them (no "
            f"--n-examples)"
        )


def check_pixels(pixels: Tensor) -> None:
    """Refuse anything but finite floating-point images of shape (n >= 1, channels, height, width) in [0, 1]."""
    if pixels.dim() != 4 or not len(pixels) or not pixels.is_floating_point():
        raise UnusableInput(
            f"expected pixels of shape (n, channels, height, width) in floating point, n >= 1; "
            f"got shape {tuple(pixels.shape)} of {pixels.dtype}"
        )
    low, high = torch.stack(pixels.aminmax()).tolist()  # a GPU makes the host wait once
    if not (low >= 0 and high <= 1):
        inside = (
            "attacks are measured in pixel space, so give the images as they are and normalise inside the model "
            "(guard_plugin.evaluation.PixelModel)"
        )
        raise UnusableInput(f"expected pixels in [0, 1], {not_pixels(low, high, otherwise=inside)}")


def check_labels(labels: Tensor, n: int, num_classes: int | None = None, *, what: str = "labels") -> int:
    """Return the highest label, and refuse anything but n int64 labels >= 0, and < num_classes where that is given."""
    if labels.shape != (n,) or labels.dtype != torch.int64:
        raise UnusableInput(
            f"expected {n} {what} of shape ({n},) in int64, got shape {tuple(labels.shape)} of {labels.dtype}"
        )
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < 0 or (num_classes is not None and high >= num_classes):
        bound = "" if num_classes is None else f" and < {num_classes}"
        raise UnusableInput(f"expected {what} >= 0{bound}, got values from {low} to {high}")
    return int(high)
