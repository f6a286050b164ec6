"""8-bit images as Pillow decodes them, upright: grey or RGB, all of one size; and their folders, one per class."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.files import existing_file
from guard_plugin.optional import require

__all__ = [
    "check_class_names",
    "class_numbers",
    "huge_refused",
    "image_array",
    "read_image_files",
    "rgb_image",
    "stack_images",
    "upright",
]

# What Pillow converts to RGB as other programs do; of deeper images it keeps only what fits into 8 bits.
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

_NUMBERED = re.compile(r"(\D*)(\d+)(\D*)")


def check_class_names(names: Sequence[str], folder: Path) -> None:
    """Refuse folders of classes that are numbered without leading zeros, so that text and numbers are in another order.

    torchvision's ImageFolder numbers classes by the order of their names as text (0, 1, 10, 2), and other programs by
    value: a network may know either.
    """
    numbers = class_numbers(names)
    if numbers is None:
        return
    as_text, by_value = sorted(numbers), sorted(numbers, key=lambda name: numbers[name])
    if as_text != by_value:
        raise UnusableInput(
            f"the classes in {folder} are numbered, and sorted as text ({', '.join(as_text[:4])}, ...) they are in "
            f"another order than by value ({', '.join(by_value[:4])}, ...). Networks are trained with either (by "
            f"torchvision's ImageFolder: as text): give all folders equally many digits, as 02 beside 10, in the order "
            f"of the network's classes"
        )


def read_image_files(files: Sequence[Path], formats: Sequence[str] = ("PNG", "JPEG")) -> Tensor:
    """Decode one or more grey or RGB image files of one size and kind; ``formats`` are Pillow's names.

    Returns:
        Shape (n, channels, height, width), uint8, in the order of the files.
    """
    pillow = require("PIL.Image", needed_by="reading image files")

    def decoded(file: Path) -> NDArray[np.uint8]:
        try:
            with huge_refused(), pillow.open(existing_file(file), formats=formats) as opened:
                image = upright(opened)
        except Exception as error:  # damaged files make Pillow fail in many ways
            raise UnusableInput(f"{file} cannot be read as a {' or '.join(formats)} image: {error}") from error
        return image_array(image, str(file))

    return stack_images(((str(file), decoded(file)) for file in files), len(files))


def class_numbers(names: Iterable[str]) -> dict[str, int] | None:
    """Return the number in each of several names that differ in it alone, such as class_0; None for other names."""
    matches = {name: _NUMBERED.fullmatch(name) for name in names}
    found = {name: match for name, match in matches.items() if match}
    if len(found) < len(matches) or len({(match[1], match[3]) for match in found.values()}) != 1:
        return None
    return {name: int(match[2]) for name, match in found.items()}


@contextmanager
def huge_refused() -> Iterator[None]:
    """Have Pillow raise an error, where it warns, of a small file that would become a huge image."""
    warning = require("PIL.Image", needed_by="reading image files").DecompressionBombWarning
    with warnings.catch_warnings():
        warnings.simplefilter("error", warning)
        yield


def upright(image: Any) -> Any:
    """Return a Pillow image as viewers show it, turned and mirrored as its EXIF data say; decoded."""
    return require("PIL.ImageOps", needed_by="reading image files").exif_transpose(image)


def rgb_image(image: Any, name: str) -> Any:
    """Convert a Pillow image of 8 bits per channel to RGB, without its transparency, or refuse another one."""
    if image.mode not in _CONVERTIBLE:
        raise UnusableInput(
            f"{name}: expected an image of at most 8 bits per channel (mode {', '.join(_CONVERTIBLE)}), got mode "
            f"{image.mode}: scale its values to 8 bits and save it again"
        )
    return image.convert("RGB")


def image_array(image: Any, name: str, *, fix: str = "convert it") -> NDArray[np.uint8]:
    """Return the values of a Pillow image, (height, width, channels), or refuse one that is neither grey nor RGB."""
    if image.mode not in ("L", "RGB"):
        raise UnusableInput(f"{name}: expected a grey or RGB image, got mode {image.mode}: {fix}")
    array = np.asarray(image)
    return array[:, :, None] if image.mode == "L" else array


def stack_images(images: Iterable[tuple[str, NDArray[np.uint8]]], n: int, *, fix: str = "") -> Tensor:
    """Stack n >= 1 named images of one size and kind, holding each of them in memory once.

    Args:
        images: What messages call each image, and its values, of shape (height, width, channels).
        n: The number of images.
        fix: What the user can do about images of several sizes.

    Returns:
        Shape (n, channels, height, width), uint8; not contiguous.
    """
    first, stacked = "", np.empty(0, np.uint8)
    for position, (name, array) in enumerate(images):
        if position == 0:
            first, stacked = name, np.empty((n, *array.shape), np.uint8)
        if array.shape != stacked.shape[1:]:
            raise UnusableInput(
                f"expected images of one size and kind, got (height, width, channels) = {stacked.shape[1:]} in {first} "
                f"and {array.shape} in {name}{fix and ': ' + fix}"
            )
        stacked[position] = array
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)
