"""Arrays of unknown origin: .npz files are read without executing what they hold; images and labels get one form."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guard_plugin.errors import UnsafeFile, UnusableInput

__all__ = ["ArrayFile", "channels_first", "class_indices", "whole_numbers"]


class ArrayFile:
    """The arrays of a file that ``numpy.savez`` wrote, each read when it is asked for; a pickled one never is."""

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.is_file():
            raise UnusableInput(f"no such file: {file}")
        try:
            with zipfile.ZipFile(file) as archive:
                self.names = tuple(name.removesuffix(".npy") for name in archive.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise UnusableInput(f"{file} cannot be read as a file that numpy.savez wrote: {error}") from error

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        """Read the array of that name as a tensor; refuse Python objects, because reading them would run code."""
        try:
            with np.load(self.file, allow_pickle=False) as archive:
                array = np.asarray(archive[name])
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if "pickle" in str(error):
                raise UnsafeFile(
                    f"{self.file} is refused: {name!r} holds Python objects, and reading them would run code of the "
                    f"file's own. Save arrays of numbers instead."
                ) from error
            raise UnusableInput(f"{self.file}: {name!r} cannot be read as an array of numbers: {error}") from error


def channels_first(images: Tensor, where: str) -> Tensor:
    """Bring images of ``where`` to the shape (n, channels, height, width); refuse a shape that could be either."""
    if images.dim() == 3:
        return images.unsqueeze(1)
    first, last = (images.dim() == 4 and images.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        raise UnusableInput(
            f"{where}: expected images of shape (n, height, width), (n, channels, height, width) or (n, height, width, "
            f"channels) with 1 or 3 channels, got {tuple(images.shape)}{', which could be either' if first else ''}"
        )
    return images if first else images.permute(0, 3, 1, 2)


def class_indices(labels: Tensor, where: str) -> Tensor:
    """Bring the labels of ``where``, integers of any kind and of shape (n,) or (n, 1), to int64 and shape (n,)."""
    flat = labels.squeeze(1) if labels.dim() == 2 and labels.shape[1] == 1 else labels
    if flat.dim() != 1 or flat.is_floating_point() or flat.is_complex() or flat.dtype == torch.bool:
        raise UnusableInput(
            f"{where}: expected class indices, integers of shape (n,), got {labels.dtype} of {tuple(labels.shape)}"
        )
    return flat.long()


def whole_numbers(values: Tensor) -> Tensor | None:
    """Return values of any type as int64; None if one of them is not a whole number."""
    whole = values.long()
    return whole if torch.equal(whole.to(values.dtype), values) else None
