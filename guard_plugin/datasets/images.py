"""Images to measure on, and what their readers have in common."""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from guard_plugin.datasets.checks import check_labels, check_pixels
from guard_plugin.errors import UnusableInput

__all__ = [
    "ImageSet",
    "Part",
    "Raw",
    "Source",
    "data_folder",
    "fixed_order",
    "images_from_tensors",
    "package",
    "read_part",
    "tensors_sha256",
]


@dataclass(frozen=True)
class ImageSet:
    """Images in pixel space with their labels.

    Args:
        name: Name of the data set.
        pixels: Shape (n, channels, height, width), float32, in [0, 1].
        labels: Shape (n,), int64.
        num_classes: How many classes the data set has.
        sha256: Of the labels and the raw values (before division) of these very images, in this order.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    num_classes: int
    sha256: str


@dataclass(frozen=True)
class Raw:
    """Values of shape (n, channels, height, width), of which ``white`` is pixel 1, and int64 labels."""

    values: Tensor
    labels: Tensor
    white: int = 255


@dataclass(frozen=True)
class Part:
    """A part of a data set, of which only what is asked for is read.

    Args:
        order: The numbers of its images, in the order in which the first ones are taken.
        num_classes: How many classes the data set has.
        read: Reads the images of these numbers.
    """

    order: NDArray[Any]
    num_classes: int
    read: Callable[[NDArray[Any]], Raw]


Source: TypeAlias = Mapping[str, Callable[[], Part]]
"""What opens the parts that a data set has of its own: "test", mostly "train", rarely "val"."""


def read_part(name: str, part: Part, n_examples: int | None, where: str) -> ImageSet:
    """Read the first images of a part.

    Args:
        name: The data set's.
        part: The part.
        n_examples: How many, all by default.
        where: What the part is called in messages.

    Raises:
        UnusableInput: If it does not hold as many, or they cannot be read.
    """
    n = _number_of_examples(n_examples, len(part.order), where)
    raw = part.read(part.order[:n])
    values, labels = raw.values.contiguous(), raw.labels.contiguous()
    check_labels(labels, len(values), part.num_classes, what=f"labels of {name}")
    pixels = values.float() if raw.white == 1 else values.float().div_(raw.white)
    return ImageSet(name, pixels, labels, part.num_classes, tensors_sha256(values, labels))


def images_from_tensors(pixels: Tensor, labels: Tensor, n_examples: int | None = None) -> ImageSet:
    """Make an image set of the caller's own tensors.

    Args:
        pixels: Shape (n, channels, height, width), floating point, in [0, 1].
        labels: Shape (n,), int64.
        n_examples: How many of the first ones, all by default.

    Returns:
        The images; the number of classes is taken to be the highest label + 1.

    Raises:
        UnusableInput: If shapes, types or ranges are others, or ``n_examples`` is out of range.
    """
    check_pixels(pixels)
    check_labels(labels, len(pixels))
    n = _number_of_examples(n_examples, len(pixels), "the given tensors")
    pixels, labels = pixels[:n].detach().cpu().float(), labels[:n].cpu()
    return ImageSet("tensors", pixels, labels, int(labels.max()) + 1, tensors_sha256(pixels, labels))


def tensors_sha256(*tensors: Tensor) -> str:
    """The SHA-256 over types, shapes and values of the tensors, in hexadecimal."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def fixed_order(n: int) -> NDArray[Any]:
    """A fixed permutation of n images: files are often sorted by class, and the first ones would be of one class."""
    return np.random.RandomState(0).permutation(n)


def data_folder(name: str, data_dir: Path | str | None, files: str) -> Path:
    """The data folder, if there is one.

    Args:
        name: The data set's.
        data_dir: What the user gave.
        files: What must lie in it, for the message.

    Raises:
        UnusableInput: If none was given, or it is no folder.
    """
    if data_dir is None:
        raise UnusableInput(f"{name} needs a data folder, the one that holds {files}: none was given")
    if not Path(data_dir).is_dir():
        raise UnusableInput(f"expected a data folder that holds {files} for {name}, but {data_dir} is no folder")
    return Path(data_dir)


def package(name: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        UnusableInput: If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnusableInput(
            f'this data set is read by {name}, and {error.name} is not installed: pip install "guard-plugin[{extra}]"'
        ) from error


def _number_of_examples(wanted: int | None, available: int, where: str) -> int:
    if not available:
        raise UnusableInput(f"expected images in {where}, found none")
    if wanted is None:
        return available
    if not 1 <= wanted <= available:
        raise UnusableInput(f"expected n_examples from 1 to {available}, which is what {where} holds; got {wanted}")
    return wanted
