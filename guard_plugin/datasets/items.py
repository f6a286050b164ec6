"""Reading images one by one from a data set of pairs of a Pillow image and a label."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from guard_plugin.errors import UnusableInput
from guard_plugin.image_files import image_array, stack_images
from guard_plugin.optional import require

__all__ = ["read_items"]

_KEPT = 0.875  # the part of the shorter side that the central crop keeps: 224 of 256 pixels


def read_items(
    item: Callable[[int], Any], numbers: NDArray[Any], *, dataset: str, describe: Callable[[int], str], size: int | None
) -> tuple[Tensor, Tensor]:
    """Read grey or RGB images of one size.

    Args:
        item: Returns the Pillow image and the integer label of a number.
        numbers: The numbers of the images to read, at least one.
        dataset: The name of the data set.
        describe: Returns what messages call the image of a number.
        size: If given, the shorter side is resized to size / 0.875, rounded, and size x size pixels are cropped from
            the centre, as torchvision's evaluation does.

    Returns:
        The values, of shape (n, channels, height, width) in uint8, and the labels, of shape (n,) in int64.

    Raises:
        UnusableInput: If an image is damaged, has another size or kind than the first, or has no integer label.
    """
    labels = torch.empty(len(numbers), dtype=torch.int64)

    def arrays() -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for position, number in enumerate(tqdm(numbers.tolist(), f"reading {dataset}", disable=None, leave=False)):
            name = describe(number)
            image, labels[position] = _loaded(item, number, name)
            fix = "convert it, or arrange the data set as ImageFolder, which converts"
            yield name, image_array(image if size is None else _resized(image, size), name, fix=fix)

    fix = f"give the size to bring all of them to behind the name, such as {dataset}@64"
    return stack_images(arrays(), len(numbers), fix=fix), labels


def _loaded(item: Callable[[int], Any], number: int, name: str) -> tuple[Any, int]:
    """Return the decoded Pillow image and the label of a number."""
    image_type = require("PIL.Image", needed_by="reading images").Image
    try:
        pair = item(number)
        if isinstance(pair, tuple) and pair and isinstance(pair[0], image_type):
            pair[0].load()
    except Exception as error:  # damaged files make Pillow fail in many ways
        raise UnusableInput(
            f"{name} cannot be read: {type(error).__name__}: {error}; is it damaged or missing?"
        ) from error
    if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], image_type) and _is_index(pair[1])):
        found = f"({', '.join(type(part).__name__ for part in pair)})" if isinstance(pair, tuple) else type(pair)
        raise UnusableInput(
            f"{name}: expected an image and its class, an integer, got {found}: this is no data set for "
            f"classification, or has no labels for this split; arrange it as ImageFolder or .npz"
        )
    return pair[0], operator.index(pair[1])


def _is_index(label: Any) -> bool:
    return hasattr(label, "__index__") and not isinstance(label, bool) and np.ndim(label) == 0


def _resized(image: Any, size: int) -> Any:
    transforms = require("torchvision.transforms.functional", needed_by="resizing images")
    return transforms.center_crop(transforms.resize(image, round(size / _KEPT)), size)
