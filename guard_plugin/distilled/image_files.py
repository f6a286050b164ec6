"""Distilled images that lie in image files, decoded by Pillow, as the hosts do it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.optional import require
from guard_plugin.spaces import Normalization

__all__ = ["read_image_files"]


def read_image_files(labels: Mapping[Path, int], num_classes: int, formats: Sequence[str]) -> DistilledSet:
    """Read images of one size, all grey or all RGB, as pixels.

    Args:
        labels: The class of each file, of which there is at least one.
        num_classes: The number of classes.
        formats: The formats that a file may have, as Pillow names them: ("PNG", "JPEG").

    Raises:
        UnusableInput: If Pillow is not installed, or a file is damaged, of another format, or of another size or kind
            than the first.
    """
    images = _images(list(labels), formats)
    return DistilledSet(
        images=images,
        labels=torch.tensor(list(labels.values())),
        num_classes=num_classes,
        normalization=Normalization.identity(images.shape[1]),
        files=tuple(labels),
    )


def _images(files: Sequence[Path], formats: Sequence[str]) -> Tensor:
    """Return the pixels of all files, shape (n, channels, height, width), float32, in [0, 1]."""
    arrays = [_decoded(file, formats) for file in files]
    other = next((index for index, array in enumerate(arrays) if array.shape != arrays[0].shape), None)
    if other is not None:
        raise UnusableInput(
            f"expected images of one size and kind, got (height, width, channels) = {arrays[0].shape} in {files[0]} "
            f"and {arrays[other].shape} in {files[other]}: are both of one run?"
        )
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous().float() / 255


def _decoded(file: Path, formats: Sequence[str]) -> NDArray[np.uint8]:
    """Return the pixels of one file, shape (height, width, channels)."""
    pillow = require("PIL.Image", needed_by="reading image files")
    try:
        with pillow.open(file, formats=formats) as image:
            mode, array = image.mode, np.asarray(image)
    except Exception as error:  # damaged files make Pillow fail in many ways
        raise UnusableInput(f"{file} cannot be read as a {' or '.join(formats)} image: {error}") from error
    if mode not in ("L", "RGB"):
        raise UnusableInput(f"{file}: expected a grey or RGB image, got mode {mode}: convert it")
    return array[:, :, None] if mode == "L" else array
