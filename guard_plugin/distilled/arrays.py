"""Arrays of unknown origin: .npz files are read without executing what they hold; images and labels get one form."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.files import existing_file

__all__ = ["ArrayFile", "channels_first", "class_indices", "whole_numbers"]

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

# Images shrink several times where they are compressed; an archive that is there to fill the memory, a thousand times.
_MOST_COMPRESSED = 100
_SMALL = 1 << 29  # bytes that an array may always take


class ArrayFile:
    """The arrays of a file that ``numpy.savez`` wrote, each read when it is asked for; a pickled one never is."""

    def __init__(self, file: Path) -> None:
        self.file = existing_file(file)
        try:
            with zipfile.ZipFile(file) as archive:
                self.names = tuple(name.removesuffix(".npy") for name in archive.namelist())
        except Exception as error:  # damaged files make zipfile fail in many ways
            raise UnusableInput(f"{file} cannot be read as a file that numpy.savez wrote: {error}") from error

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        """Read the array of that name as a tensor; refuse Python objects, because reading them would run code."""
        try:
            self._check_size(name)
            with np.load(self.file, allow_pickle=False) as archive:
                array = np.asarray(archive[name])
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        except Exception as error:  # damaged files make numpy fail in many ways
            if "pickle" in str(error):
                raise UnsafeFile(
                    f"{self.file} is refused: {name!r} holds Python objects, and reading them would run code of the "
                    f"file's own. Save arrays of numbers instead."
                ) from error
            raise UnusableInput(f"{self.file}: {name!r} cannot be read as an array of numbers: {error}") from error

    def _check_size(self, name: str) -> None:
        """Refuse, before it is read, an array that is larger than its place in the file, or than is plausible."""
        with zipfile.ZipFile(self.file) as archive, archive.open(f"{name}.npy") as member:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
            held = archive.getinfo(f"{name}.npy").file_size
        promised, size = math.prod(shape) * dtype.itemsize, self.file.stat().st_size
        if not dtype.hasobject and promised > held:
            raise ValueError(f"its shape {shape} of {dtype} is {promised} bytes, and the file holds {held}")
        if held > max(_SMALL, _MOST_COMPRESSED * size):
            raise ValueError(f"it unpacks to {held} bytes from a file of {size}: save it with numpy.savez")


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
