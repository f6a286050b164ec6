"""Parts of data sets: what every reader of images opens, and what all readers share."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.image_files import huge_refused, image_array, stack_images
from guard_plugin.optional import require
from guard_plugin.progress import tracked

__all__ = ["SPLITS", "Part", "Source", "data_folder", "part_in_memory", "part_of_files"]

SPLITS = ("train", "val", "test")

_KEPT = 0.875  # the part of the shorter side that the central crop keeps: 224 of 256 pixels


@dataclass(frozen=True)
class Part:
    """A part of a data set whose images are read only when they are asked for.

    The first n examples are the images of the first n numbers in ``order``. ``read`` takes such numbers and returns
    values of shape (n, channels, height, width), where the value ``white`` is pixel 1, and labels in int64.
    ``class_names`` are those of the folders, if there are.
    """

    order: NDArray[Any]
    num_classes: int
    read: Callable[[NDArray[Any]], tuple[Tensor, Tensor]]
    white: int = 255
    class_names: tuple[str, ...] = ()


Source = Mapping[str, Callable[[], Part]]
"""Functions that open the parts that a data set has of its own, under "train", "val" or "test"."""


def data_folder(name: str, data_dir: Path | str | None, files: str) -> Path:
    """Return the user's folder with the files of a data set, or refuse by ``UnusableInput`` what is no folder."""
    if data_dir is None:
        raise UnusableInput(f"{name} needs a data folder, the one that holds {files}: none was given")
    if not Path(data_dir).is_dir():
        raise UnusableInput(f"expected a data folder that holds {files} for {name}, but {data_dir} is no folder")
    return Path(data_dir)


def part_in_memory(values: Tensor, labels: Tensor, num_classes: int, *, white: int = 255) -> Part:
    """Make a part of images that are in memory, in their own order."""
    return Part(np.arange(len(labels)), num_classes, lambda numbers: (values[numbers], labels[numbers]), white)


def part_of_files(
    item: Callable[[int], Any], n: int, num_classes: int, *, dataset: str, name: Callable[[int], str], size: int | None
) -> Part:
    """Make a part of n grey or RGB images in a fixed permutation, of which only those that are asked for are read.

    ``item`` returns the Pillow image and the integer label of a number, and ``name`` what messages call that image. If
    ``size`` is given, the shorter side is resized to size / 0.875, rounded, and size x size pixels are cropped from the
    centre, as torchvision's evaluation does.
    """
    fix = "convert it, or arrange the data set as ImageFolder, which converts what has 8 bits per channel"

    def read(numbers: NDArray[Any]) -> tuple[Tensor, Tensor]:
        labels: list[int] = []

        def arrays() -> Iterator[tuple[str, NDArray[np.uint8]]]:
            for number in tracked(numbers.tolist(), f"reading {dataset}", len(numbers), "image"):
                image, label = _loaded(item, number, name(number))
                labels.append(label)
                yield name(number), image_array(image if size is None else _resized(image, size), name(number), fix=fix)

        one_size = f"give the size to bring all of them to behind the name, such as {dataset}@64"
        return stack_images(arrays(), len(numbers), fix=one_size), torch.tensor(labels)

    # Files are often sorted by class, so that the first of them show one class alone.
    return Part(np.random.RandomState(0).permutation(n), num_classes, read)


def _loaded(item: Callable[[int], Any], number: int, name: str) -> tuple[Any, int]:
    """Return the decoded Pillow image and the label of a number."""
    image_type = require("PIL.Image", needed_by="reading images").Image
    try:
        with huge_refused():
            found = item(number)
            pair: tuple[Any, Any] = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
            image, label = pair
            if isinstance(image, image_type):
                image.load()
    except GuardError:
        raise
    except Exception as error:  # damaged files make Pillow fail in many ways
        raise UnusableInput(
            f"{name} cannot be read: {type(error).__name__}: {error}; is it damaged or missing?"
        ) from error
    integer = hasattr(label, "__index__") and not isinstance(label, bool) and np.ndim(label) == 0
    if not (isinstance(image, image_type) and integer):
        kinds = f"({', '.join(type(part).__name__ for part in found)})" if isinstance(found, tuple) else type(found)
        raise UnusableInput(
            f"{name}: expected an image and its class, an integer, got {kinds}: this is no data set for "
            f"classification, or has no labels for this split; arrange it as ImageFolder or .npz"
        )
    return image, operator.index(label)


def _resized(image: Any, size: int) -> Any:
    transforms = require("torchvision.transforms.functional", needed_by="resizing images")
    return transforms.center_crop(transforms.resize(image, round(size / _KEPT)), size)
