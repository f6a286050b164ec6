"""Distilled images in plain files, whatever code wrote them: the adapter name "plain"."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard_plugin.distilled.arrays import ArrayFile, channels_first, class_indices
from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.files import load_untrusted
from guard_plugin.spaces.normalization import Normalization

__all__ = ["read_plain"]

_KEYS = ("images", "labels", "mean", "std", "num_classes")
_PICTURES = (".png", ".jpg", ".jpeg")
_FORMATS = (
    "a .pt of {'images': ..., 'labels': ...} or (images, labels), a .npz with arrays images and labels, or a folder "
    "with one folder of PNG or JPEG pictures per class"
)


def read_plain(path: Path) -> list[DistilledSet]:
    """Read one distilled set from a file or folder of no particular host.

    - ``.pt`` or ``.pth``: a dictionary with "images" and "labels", or (images, labels), as ``torch.save`` wrote it;
    - ``.npz``: arrays ``images`` and ``labels``;
    - a folder with one folder of PNG or JPEG pictures per class; their sorted names give the classes their numbers.

    Images are uint8, or floating point in [0, 1]: pixels, which students take as they are. A file may hold ``mean`` and
    ``std``, one number per channel in pixel units: then floating-point images are normalised by them already, uint8
    ones are normalised here, and students take normalised images. Labels are class indices, or class probabilities of
    shape (n, classes). ``num_classes`` is the highest label + 1 unless the file holds it.

    Args:
        path: The file or folder.

    Raises:
        UnusableInput: If the contents are others, or do not fit together.
        UnsafeFile: If reading the file would run code.
    """
    if path.is_dir():
        return [_pictures(path)]
    if path.suffix == ".npz":
        arrays = ArrayFile(path)
        return [_distilled_set(path, {key: arrays[key] for key in _KEYS if key in arrays})]
    if path.suffix not in (".pt", ".pth"):
        raise UnusableInput(f"expected {_FORMATS}; got {path}")
    content = load_untrusted(path)
    if isinstance(content, (tuple, list)) and len(content) == 2:
        content = {"images": content[0], "labels": content[1]}
    if not isinstance(content, Mapping):
        raise UnusableInput(
            f"{path}: expected {{'images': ..., 'labels': ...}} or (images, labels), got {type(content).__name__}; "
            f"what a known host wrote is read by its own --adapter"
        )
    return [_distilled_set(path, content)]


def _distilled_set(path: Path, content: Mapping[Any, Any]) -> DistilledSet:
    images, labels = content.get("images"), content.get("labels")
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        found = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in content.items())
        raise UnusableInput(f"{path}: expected tensors 'images' and 'labels', found {found or 'nothing'}")
    images = channels_first(images.detach(), f"{path}, images")
    normalization = _normalization(path, content, images.shape[1])
    hard = not (labels.dim() == 2 and labels.is_floating_point())
    labels = class_indices(_whole(labels.detach()), f"{path}, labels") if hard else labels.detach().float()
    if hard and not len(labels):
        raise UnusableInput(f"{path}: expected images and labels, found none")
    return DistilledSet(
        images=_as_input(path, images, normalization).contiguous(),
        labels=labels,
        num_classes=_num_classes(path, content, int(labels.max()) + 1 if hard else labels.shape[1]),
        normalization=normalization or _identity(images.shape[1]),
    )


def _as_input(path: Path, images: Tensor, normalization: Normalization | None) -> Tensor:
    """The images as students take them."""
    if images.dtype == torch.uint8:
        pixels = images.float() / 255
        return pixels if normalization is None else normalization.to_input(pixels)
    if not images.is_floating_point():
        raise UnusableInput(f"{path}: expected images in uint8 or floating point, got {images.dtype}")
    images = images.float()
    if normalization is None and images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise UnusableInput(
            f"{path}: expected images in [0, 1] (or uint8), got values from {float(images.min()):.4g} to "
            f"{float(images.max()):.4g}: if they are normalised, put the 'mean' and 'std' that did it into the file too"
        )
    return images


def _normalization(path: Path, content: Mapping[Any, Any], channels: int) -> Normalization | None:
    given = [key for key in ("mean", "std") if content.get(key) is not None]
    if not given:
        return None
    if len(given) == 1:
        raise UnusableInput(f"{path}: expected both 'mean' and 'std', or neither; found only {given[0]!r}")
    mean, std = (_numbers(path, key, content[key]) for key in given)
    if len(mean) != channels or len(std) != channels:
        raise UnusableInput(
            f"{path}: expected {channels} number(s), one per channel, as 'mean' and as 'std', got {len(mean)} and "
            f"{len(std)}"
        )
    return Normalization(mean, std)


def _numbers(path: Path, key: str, value: Any) -> tuple[float, ...]:
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(f"{path}: expected numbers as {key!r}, got {type(value).__name__}") from error
    if not bool(torch.isfinite(numbers).all()):
        raise UnusableInput(f"{path}: expected finite numbers as {key!r}, got {numbers.tolist()}")
    return tuple(numbers.tolist())


def _num_classes(path: Path, content: Mapping[Any, Any], told_by_labels: int) -> int:
    value = content.get("num_classes", told_by_labels)
    try:
        return int(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(f"{path}: expected an integer as 'num_classes', got {type(value).__name__}") from error


def _whole(labels: Tensor) -> Tensor:
    """Class indices that were saved as floating point, as integers."""
    whole = labels.long()
    return whole if labels.is_floating_point() and torch.equal(whole.to(labels.dtype), labels) else labels


def _identity(channels: int) -> Normalization:
    return Normalization((0.0,) * channels, (1.0,) * channels)


def _pictures(path: Path) -> DistilledSet:
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    stray = next((entry for entry in entries if not entry.is_dir()), None)
    if not entries or stray:
        raise UnusableInput(f"expected {_FORMATS}; found {f'the file {stray.name}' if stray else 'nothing'} in {path}")
    files = [(file, label) for label, folder in enumerate(entries) for file in _files(folder)]
    images = torch.from_numpy(_decoded([file for file, _ in files])).permute(0, 3, 1, 2)
    return DistilledSet(
        images=(images.float() / 255).contiguous(),
        labels=torch.tensor([label for _, label in files]),
        num_classes=len(entries),
        normalization=_identity(images.shape[1]),
        files=tuple(file for file, _ in files),
    )


def _files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    stray = next((file for file in files if file.suffix.lower() not in _PICTURES), None)
    if not files or stray:
        raise UnusableInput(f"expected PNG or JPEG pictures in {folder}, found {stray.name if stray else 'none'}")
    return files


def _decoded(files: Sequence[Path]) -> Any:
    """Shape (n, height, width, channels), uint8."""
    arrays = [_decode(file) for file in files]
    other = next((index for index, array in enumerate(arrays) if array.shape != arrays[0].shape), None)
    if other is not None:
        raise UnusableInput(
            f"expected pictures of one size and kind, got (height, width, channels) = {arrays[0].shape} in {files[0]} "
            f"and {arrays[other].shape} in {files[other]}"
        )
    return np.stack(arrays)


def _decode(file: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise UnusableInput('pictures are read by Pillow: pip install "guard-plugin[bench]"') from error
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as picture:
            mode, array = picture.mode, np.asarray(picture)
    except Exception as error:  # damaged files make Pillow fail in many ways
        raise UnusableInput(f"{file} cannot be read as a PNG or JPEG picture: {error}") from error
    if mode not in ("L", "RGB"):
        raise UnusableInput(f"{file}: expected a grey or RGB picture, got mode {mode}: convert it")
    return array[:, :, None] if mode == "L" else array
