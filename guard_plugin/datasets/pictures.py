"""Reading images one by one, as Pillow decodes them."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from guard_plugin.datasets.images import Raw, package
from guard_plugin.errors import UnusableInput

__all__ = ["read_pictures"]

_KEPT = 0.875  # of the shorter side, by the centre crop: 224 of 256


def read_pictures(
    item: Callable[[int], Any],
    numbers: NDArray[Any],
    *,
    name: str,
    call: Callable[[int], str],
    size: int | None = None,
) -> Raw:
    """Read images of one size, grey or RGB.

    Args:
        item: Gives a Pillow image and its label, an integer, by number.
        numbers: Which ones.
        name: The data set's.
        call: What an image is called in messages.
        size: Resize the shorter side to size / 0.875, rounded, and crop size x size from the centre: torchvision's
            usual evaluation. By default, take images as they are.

    Raises:
        UnusableInput: If an image is damaged, of another kind or another size than the first.
    """
    values: NDArray[np.uint8] | None = None
    labels = torch.empty(len(numbers), dtype=torch.int64)
    for position, number in enumerate(tqdm(numbers.tolist(), f"reading {name}", disable=None, leave=False)):
        array, labels[position] = _one(item, number, call, size)
        if values is None:
            values = np.empty((len(numbers), *array.shape), dtype=np.uint8)
        if array.shape != values.shape[1:]:
            raise UnusableInput(
                f"expected images of one size and kind, got (height, width, channels) = {values.shape[1:]} in "
                f"{call(int(numbers[0]))} and {array.shape} in {call(number)}: give the size to bring all of them to "
                f"behind the name, such as {name}@64"
            )
        values[position] = array
    return Raw(torch.from_numpy(values).permute(0, 3, 1, 2), labels)


def _one(item: Callable[[int], Any], number: int, call: Callable[[int], str], size: int | None) -> tuple[Any, int]:
    """Shape (height, width, channels), uint8; and the label."""
    image = package("PIL.Image", "bench").Image
    try:
        pair = item(number)
        if isinstance(pair, tuple) and pair and isinstance(pair[0], image):
            pair[0].load()
    except Exception as error:  # damaged files make Pillow fail in many ways
        raise UnusableInput(
            f"{call(number)} cannot be read: {type(error).__name__}: {error}; is it damaged or missing?"
        ) from error
    if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], image) and _is_index(pair[1])):
        found = f"({', '.join(type(part).__name__ for part in pair)})" if isinstance(pair, tuple) else type(pair)
        raise UnusableInput(
            f"{call(number)}: expected an image and its class, an integer, got {found}: this is no data set for "
            f"classification, or has no labels for this split; arrange it as ImageFolder or .npz"
        )
    picture = pair[0] if size is None else _sized(pair[0], size)
    if picture.mode not in ("L", "RGB"):
        raise UnusableInput(
            f"{call(number)}: expected a grey or RGB image, got mode {picture.mode}; convert it, or arrange the data "
            f"set as ImageFolder, which converts"
        )
    array = np.asarray(picture)
    return array[:, :, None] if picture.mode == "L" else array, operator.index(pair[1])


def _is_index(label: Any) -> bool:
    return hasattr(label, "__index__") and not isinstance(label, bool) and np.ndim(label) == 0


def _sized(picture: Any, size: int) -> Any:
    transforms = package("torchvision.transforms.functional", "bench")
    return transforms.center_crop(transforms.resize(picture, round(size / _KEPT)), size)
