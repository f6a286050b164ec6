"""Soft labels stored by fast knowledge distillation (FKD: Shen and Xing, ECCV 2022), as SRe2L writes them.

``FOLDER/epoch_E/batch_B.tar`` holds ``[coords, flip_status, mix_index, mix_lam, mix_bbox, logits]``: what a teacher
answered, batch by batch, to one view of each image per epoch. No file says which images a batch is about. That follows
from torch's own ``RandomSampler`` and a seed, the host's ``--fkd-seed`` (42): one generator for all epochs.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler

from guard_plugin.errors import UnusableInput
from guard_plugin.files import joint_sha256, load_untrusted
from guard_plugin.versions import strict_zip

__all__ = ["FkdLabels", "Mix", "StoredBatch", "View"]

_SEED = 42
_ROUNDING = 1e-5  # crops are stored as parts, in float32
_PARTS = ("coords", "flip_status", "mix_index", "mix_lam", "mix_bbox", "logits")


@dataclass(frozen=True)
class Mix:
    """How each image of a batch is mixed with another one of the same batch.

    Args:
        order: Shape (n,), int64: for each image, the number in the batch of the one that is mixed in.
        own: The image's own weight in a mixture of the whole images (mixup: Zhang et al., ICLR 2018), in [0, 1].
        box: First row, first column, and the row and column after the last, of the rectangle that comes from the
            other image (CutMix: Yun et al., ICCV 2019); None mixes whole images.
    """

    order: Tensor
    own: float
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class View:
    """What a network sees of a batch of n images.

    Args:
        crops: Shape (n, 4): top, left, height and width of each crop, as parts of the image's height and width; it is
            enlarged to the size of the image.
        flips: Shape (n,), bool: which crops are mirrored, left to right.
        mix: How the crops are then mixed, if they are.
    """

    crops: Tensor
    flips: Tensor
    mix: Mix | None = None


@dataclass(frozen=True)
class StoredBatch:
    """The soft labels of one file.

    Args:
        indices: Shape (n,), int64: the images, numbered in the order of their files' paths.
        view: What the teacher saw of them.
        logits: Shape (n, classes), float32: the teacher's answer.
    """

    indices: Tensor
    view: View
    logits: Tensor


class FkdLabels:
    """The stored soft labels of a set of images, one file in memory at a time.

    Args:
        folder: The folder that holds ``epoch_0`` and so on.

    Raises:
        UnusableInput: If epochs or batches are missing, a file is cut off, or the first or last file of the first epoch
            does not fit.
        UnsafeFile: If reading a file would run code.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = _numbered(folder, "epoch_", "")
        self._files = [_numbered(epoch, "batch_", ".tar") for epoch in names]
        self.epochs = len(self._files)
        batches = len(self._files[0])
        for epoch, files in strict_zip(names, self._files):
            if len(files) != batches:
                raise UnusableInput(
                    f"expected {batches} batches in each epoch, as in epoch_0, got {len(files)} in {epoch}: was the "
                    f"relabelling stopped?"
                )
        for file in chain(*self._files):
            if not zipfile.is_zipfile(file):  # as torch.save writes it; the whole file is read where it is not
                _read_whole(file)
        (_, first), (_, last) = (_read(self._files[0][number]) for number in (0, -1))
        self.batch_size, self.num_classes = first.shape
        self.n_images = self.batch_size * (batches - 1) + len(last)
        if len(last) > self.batch_size:
            raise UnusableInput(
                f"expected the last batch to be the smallest, got {len(last)} images in {self._files[0][-1]} "
                f"after batches of {self.batch_size}"
            )

    def sha256(self) -> str:
        """Compute what ``sha256sum epoch_*/batch_*.tar | sha256sum`` prints in the folder, in order of numbers."""
        return joint_sha256((file.relative_to(self.folder).as_posix(), file) for file in chain(*self._files))

    def batches(self) -> Iterator[Iterator[StoredBatch]]:
        """Iterate over the epochs, and over the batches of each.

        Raises:
            UnusableInput: If a file does not fit; raised when it is that file's turn.
            UnsafeFile: If reading a file would run code.
        """
        sampler = RandomSampler(range(self.n_images), generator=torch.Generator().manual_seed(_SEED))
        order = BatchSampler(sampler, self.batch_size, drop_last=False)
        for files in self._files:
            # The whole order now: what is drawn for the next epoch depends on this one having been drawn to its end.
            yield (
                StoredBatch(torch.tensor(indices), *_read(file, len(indices), self.num_classes))
                for file, indices in strict_zip(files, list(order))
            )


def _numbered(folder: Path, prefix: str, suffix: str) -> list[Path]:
    """Return the paths PREFIX0SUFFIX, PREFIX1SUFFIX and so on of a folder, without gaps."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)" + re.escape(suffix))
    names = (path.name for path in (folder.iterdir() if folder.is_dir() else ()))
    count = max((int(match[1]) + 1 for name in names if (match := pattern.fullmatch(name))), default=0)
    paths = [folder / f"{prefix}{number}{suffix}" for number in range(count)]
    missing = next((path for path in paths if not path.exists()), None)
    if not paths or missing:
        raise UnusableInput(
            f"expected soft labels as SRe2L's relabel writes them, FOLDER/epoch_0/batch_0.tar and so on without gaps; "
            f"found no {missing or folder / f'{prefix}0{suffix}'}: give the folder that holds epoch_0"
        )
    return paths


def _read_whole(file: Path) -> None:
    """Read a file; where it is cut off, say what may be done about it."""
    try:
        _read(file)
    except UnusableInput as error:
        raise UnusableInput(f"{error}; was the relabelling stopped? Run it again") from error


def _read(file: Path, n: int | None = None, classes: int | None = None) -> tuple[View, Tensor]:
    """Read and check a file's view and logits, which must be of n images and so many classes where these are given."""
    content = load_untrusted(file)
    if not isinstance(content, (list, tuple)) or len(content) != len(_PARTS):
        raise UnusableInput(f"{file}: expected the list [{', '.join(_PARTS)}], got {_kind(content)}")
    coords, flips, order, own, box, logits = content
    _check_tensor(file, "logits", logits, (n or "any", classes or "any"), _are_finite)
    n = len(logits)
    if n == 0 or logits.shape[1] < 2:
        raise UnusableInput(f"{file}: expected logits for images and classes, got shape {tuple(logits.shape)}")
    _check_tensor(file, "coords", coords, (n, 4), _are_crops)
    _check_tensor(file, "flip_status", flips, (n,), lambda t: not t.is_floating_point() and bool(((t | 1) == 1).all()))
    return View(coords.float(), flips.bool(), _mix(file, n, order, own, box)), logits.float()


def _check_tensor(file: Path, name: str, value: Any, shape: tuple[Any, ...], fits: Callable[[Tensor], bool]) -> None:
    """Refuse what is no tensor of this shape, where "any" is any size, or whose values do not fit."""
    is_right = isinstance(value, Tensor) and value.dim() == len(shape)
    if not is_right or any(side not in ("any", found) for side, found in strict_zip(shape, value.shape)):
        raise UnusableInput(
            f"{file}: expected {name} of shape {shape}, got {_kind(value)}: are the soft labels of other images or "
            f"classes, or of another batch size?"
        )
    if not fits(value):
        raise UnusableInput(f"{file}: {name} of {value.dtype} hold values that no {name} have")


def _are_finite(values: Tensor) -> bool:
    return values.is_floating_point() and bool(torch.isfinite(values).all())


def _are_crops(coords: Tensor) -> bool:
    """Tell whether each row is a part of an image that is not empty."""
    start, size = coords[:, :2], coords[:, 2:]
    return _are_finite(coords) and bool(((start >= 0) & (size > 0) & (start + size <= 1 + _ROUNDING)).all())


def _is_order(order: Tensor) -> bool:
    """Tell whether a tensor holds each position of a batch once."""
    return order.dtype == torch.int64 and torch.equal(order.sort().values, torch.arange(len(order)))


def _mix(file: Path, n: int, order: Any, own: Any, box: Any) -> Mix | None:
    if order is None and own is None and box is None:
        return None
    _check_tensor(file, "mix_index", order, (n,), _is_order)
    is_number = isinstance(own, Real)
    if not is_number or not 0 <= own <= 1:
        raise UnusableInput(f"{file}: expected mix_lam from 0 to 1, got {own!r:.80}")
    if box is None:
        return Mix(order, float(own))
    is_box = isinstance(box, (list, tuple)) and len(box) == 4 and all(isinstance(side, Integral) for side in box)
    if not is_box or not (0 <= box[0] <= box[2] and 0 <= box[1] <= box[3]):
        raise UnusableInput(f"{file}: expected mix_bbox of four integers [top, left, bottom, right], got {box!r:.80}")
    top, left, bottom, right = map(int, box)
    return Mix(order, float(own), (top, left, bottom, right))


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{len(value)} values" if isinstance(value, (list, tuple)) else type(value).__name__
