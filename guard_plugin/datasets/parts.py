"""Parts of data sets: what every reader of images opens, and what all readers share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard_plugin.errors import UnusableInput

__all__ = ["SPLITS", "Part", "Source", "data_folder", "fixed_order", "part_in_memory"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Part:
    """A part of a data set whose images are read only when they are asked for.

    Args:
        order: The numbers of the part's images; the first n examples are the images of the first n numbers.
        num_classes: The number of classes of the data set.
        read: Reads the images of some numbers: values of shape (n, channels, height, width), and labels in int64.
        white: The value that is pixel 1.
    """

    order: NDArray[Any]
    num_classes: int
    read: Callable[[NDArray[Any]], tuple[Tensor, Tensor]]
    white: int = 255


Source: TypeAlias = Mapping[str, Callable[[], Part]]
"""Functions that open the parts that a data set has of its own, under "train", "val" or "test"."""


def part_in_memory(values: Tensor, labels: Tensor, num_classes: int, *, white: int = 255) -> Part:
    """Make a part of images that are in memory, in their own order."""

    def read(numbers: NDArray[Any]) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(numbers)
        return values[chosen], labels[chosen]

    return Part(np.arange(len(labels)), num_classes, read, white)


def fixed_order(n: int) -> NDArray[Any]:
    """Return a fixed permutation of n numbers, since files that are sorted by class begin with one class alone."""
    return np.random.RandomState(0).permutation(n)


def data_folder(name: str, data_dir: Path | str | None, files: str) -> Path:
    """Return the user's folder with the files of a data set, or refuse by ``UnusableInput`` what is no folder."""
    if data_dir is None:
        raise UnusableInput(f"{name} needs a data folder, the one that holds {files}: none was given")
    if not Path(data_dir).is_dir():
        raise UnusableInput(f"expected a data folder that holds {files} for {name}, but {data_dir} is no folder")
    return Path(data_dir)
