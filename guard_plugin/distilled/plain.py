"""Distilled images in plain files, whatever code wrote them: the adapter name "plain"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guard_plugin.distilled.arrays import ArrayFile, channels_first, class_indices, whole_numbers
from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.files import load_untrusted
from guard_plugin.image_files import check_class_names, read_image_files
from guard_plugin.quantities import not_pixels
from guard_plugin.spaces import Normalization

__all__ = ["read_labelled_images", "read_plain"]

_KEYS = ("images", "labels", "mean", "std", "num_classes")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_EXPECTED = (
    "a .pt of {'images': ..., 'labels': ...} or (images, labels), a .npz with arrays images and labels, or a folder "
    "with one folder of PNG or JPEG images per class"
)


def read_plain(path: Path) -> list[DistilledSet]:
    """Read one distilled set from a file or folder that no known host wrote.

    - ``.pt`` or ``.pth``: a dictionary with "images" and "labels", or (images, labels), as ``torch.save`` wrote it;
    - ``.npz``: arrays ``images`` and ``labels``;
    - a folder with one folder of PNG or JPEG images per class; their names, sorted as text, give the classes their
      numbers, and numbers as names that would be sorted otherwise are refused.

    Images are uint8, or floating point in [0, 1]: pixels, which students take as they are. A file may hold ``mean`` and
    ``std``, one number per channel in pixel units: then floating-point images are normalised by them already, uint8
    ones are normalised here, and students take normalised images. Labels are class indices, or class probabilities of
    shape (n, classes). ``num_classes`` is the highest label + 1 unless the file holds it.

    Raises:
        UnusableInput: If the contents are others, or do not fit together.
        UnsafeFile: If reading the file would run code.
    """
    if path.is_dir():
        return [_read_folder(path)]
    content: Any
    if path.suffix == ".npz":
        arrays = ArrayFile(path)
        content = {key: arrays[key] for key in _KEYS if key in arrays}
    elif path.suffix in (".pt", ".pth"):
        content = load_untrusted(path)
    else:
        raise UnusableInput(f"expected {_EXPECTED}; got {path}")
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
        found = ", ".join(f"{key!r:.80}: {type(value).__name__}" for key, value in content.items())
        raise UnusableInput(f"{path}: expected tensors 'images' and 'labels', found {found or 'nothing'}")
    images, labels = channels_first(images.detach(), f"{path}, images"), labels.detach()
    normalization = _normalization(path, content, images.shape[1])
    if labels.dim() == 2 and labels.is_floating_point():
        labels, num_classes = labels.float(), labels.shape[1]
    else:
        whole = whole_numbers(labels) if labels.is_floating_point() else labels
        labels = class_indices(labels if whole is None else whole, f"{path}, labels")
        if not len(labels):
            raise UnusableInput(f"{path}: expected images and labels, found none")
        num_classes = int(labels.max()) + 1
    return DistilledSet(
        images=_as_input(path, images, normalization).contiguous(),
        labels=labels,
        num_classes=_converted(path, "num_classes", content.get("num_classes", num_classes), "an integer", int),
        normalization=normalization or Normalization.identity(images.shape[1]),
    )


def _as_input(path: Path, images: Tensor, normalization: Normalization | None) -> Tensor:
    """Return the images as students take them."""
    if images.dtype == torch.uint8:
        pixels = images.float() / 255
        return pixels if normalization is None else normalization.to_input(pixels)
    if not images.is_floating_point():
        raise UnusableInput(f"{path}: expected images in uint8 or floating point, got {images.dtype}")
    images = images.float()
    if normalization is None and images.numel() and not (images.min() >= 0 and images.max() <= 1):
        normalised = "if they are normalised, put the 'mean' and 'std' that did it into the file too"
        found = not_pixels(float(images.min()), float(images.max()), otherwise=normalised)
        raise UnusableInput(f"{path}: expected images in [0, 1] (or uint8), {found}")
    return images


def _normalization(path: Path, content: Mapping[Any, Any], channels: int) -> Normalization | None:
    given = {key: content[key] for key in ("mean", "std") if content.get(key) is not None}
    if not given:
        return None
    if len(given) == 1:
        raise UnusableInput(f"{path}: expected both 'mean' and 'std', or neither; found only {next(iter(given))!r}")
    mean, std = (_converted(path, key, value, "numbers", _numbers) for key, value in given.items())
    if len(mean) != channels or len(std) != channels:
        raise UnusableInput(
            f"{path}: expected {channels} number(s), one a channel, as 'mean' and 'std', got {len(mean)} and {len(std)}"
        )
    return Normalization(mean, std)


def _converted(path: Path, key: str, value: Any, expected: str, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(value)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise UnusableInput(f"{path}: expected {expected} as {key!r}, got {type(value).__name__}") from error


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(torch.as_tensor(value, dtype=torch.float64).flatten().tolist())


def _read_folder(path: Path) -> DistilledSet:
    folders = _entries(path, _EXPECTED, Path.is_dir)
    check_class_names([folder.name for folder in folders], path)
    labels = {
        file: label
        for label, folder in enumerate(folders)
        for file in _entries(folder, "PNG or JPEG images", lambda file: file.suffix.lower() in _SUFFIXES)
    }
    names = tuple(folder.name for folder in folders)
    return replace(read_labelled_images(labels, len(folders), "PNG", "JPEG"), class_names=names)


def read_labelled_images(labels: Mapping[Path, int], num_classes: int, *formats: str) -> DistilledSet:
    """Read as pixels the images of files, at least one, with the class of each; formats are Pillow's names."""
    images = read_image_files(list(labels), formats).contiguous().float() / 255
    return DistilledSet(
        images=images,
        labels=torch.tensor(list(labels.values())),
        num_classes=num_classes,
        normalization=Normalization.identity(images.shape[1]),
        files=tuple(labels),
    )


def _entries(folder: Path, expected: str, fits: Callable[[Path], bool]) -> list[Path]:
    """Return what lies in a folder, in the order of names, without hidden files; at least one, and all that fit."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    stray = next((entry for entry in entries if not fits(entry)), None)
    if not entries or stray:
        raise UnusableInput(f"expected {expected}, found {stray.name if stray else 'nothing'} in {folder}")
    return entries
