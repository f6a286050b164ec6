"""Images and labels that the user saved with numpy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard_plugin.datasets.image_set import check_chosen, check_labels, check_pixels
from guard_plugin.datasets.parts import SPLITS, Part, Source
from guard_plugin.distilled.arrays import ArrayFile, channels_first, class_indices
from guard_plugin.errors import UnusableInput

__all__ = ["npz_source"]

_KERAS = {part: (f"x_{part}", f"y_{part}") for part in SPLITS}  # the arrays of images and of labels, by part
_MOST_CLASSES = 100_000


def npz_source(name: str, data_dir: Path | str | None, num_classes: int | None) -> Source:
    """Open a .npz file, whose images stay in the file's order; some of images sorted by class are refused.

    The file holds ``images`` and ``labels``, which are the test split, or ``x_test`` and ``y_test`` with or without
    ``x_train``, ``y_train``, ``x_val`` and ``y_val``. Images are uint8, or floating point in [0, 1], of shape
    (n, height, width), (n, height, width, channels) or (n, channels, height, width). ``name`` is the file, as a path
    or in ``data_dir``. The number of classes is the highest label + 1, or ``num_classes``.
    """
    file = Path(name)
    if not file.is_file() and data_dir is not None:
        file = Path(data_dir) / name
    arrays = ArrayFile(file)
    names = _KERAS if "x_test" in arrays else {**_KERAS, "test": ("images", "labels")}
    held = {part: keys for part, keys in names.items() if all(key in arrays for key in keys)}
    if "test" not in held:
        raise UnusableInput(
            f"{file}: expected arrays images and labels, or x_test and y_test (and x_train and y_train), found "
            f"{', '.join(arrays.names) or 'none'}"
        )
    labels = {part: class_indices(arrays[keys[1]], f"{file}, {keys[1]}") for part, keys in held.items()}
    least = max((int(one.max()) + 1 for one in labels.values() if len(one)), default=0)
    if least > _MOST_CLASSES:
        raise UnusableInput(f"{file}: expected class indices below {_MOST_CLASSES}, got {least - 1}")
    if num_classes is not None and num_classes < least:
        raise UnusableInput(f"{file}: expected --num-classes >= {least}, the highest label + 1, got {num_classes}")
    num_classes = num_classes or least
    return {part: partial(_part, arrays, keys[0], labels[part], num_classes) for part, keys in held.items()}


def _part(arrays: ArrayFile, key: str, labels: Tensor, num_classes: int) -> Part:
    where = f"{arrays.file}, {key}"
    images = channels_first(arrays[key], where)
    if len(images) != len(labels):
        raise UnusableInput(f"{where}: expected one label per image, got {len(images)} images and {len(labels)} labels")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UnusableInput(f"{where}: expected uint8, or floating point in [0, 1], got {images.dtype}")
    if images.is_floating_point() and len(images):
        check_pixels(images)

    def read(numbers: NDArray[Any]) -> tuple[Tensor, Tensor]:
        check_labels(labels, len(labels), num_classes, what=f"labels of {where}")
        check_chosen(labels[numbers], labels, where)
        return images[numbers], labels[numbers]

    return Part(np.arange(len(labels)), num_classes, read, white=255 if images.dtype == torch.uint8 else 1)
