"""Images to measure on, read from what is already on the disk: nothing is ever downloaded."""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.models import check_labels, check_pixels

__all__ = [
    "DATASETS",
    "SPLITS",
    "ImageSet",
    "images_from_tensors",
    "load_images",
    "load_training_images",
    "tensors_sha256",
]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageSet:
    """Images in pixel space with their labels.

    Args:
        name: Name of the data set.
        pixels: Shape (n, channels, height, width), float32, in [0, 1].
        labels: Shape (n,), int64.
        num_classes: How many classes the data set has.
        sha256: Of the labels and the raw values (before division) of these very images, in this order.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    num_classes: int
    sha256: str


@dataclass(frozen=True)
class _Raw:
    """A whole split: values of shape (n, channels, height, width) in uint8, of which ``white`` is pixel 1."""

    values: Tensor
    labels: Tensor
    white: int = 255


def tensors_sha256(*tensors: Tensor) -> str:
    """The SHA-256 over types, shapes and values of the tensors, in hexadecimal."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def load_images(
    dataset: str, data_dir: Path | str | None = None, split: str = "test", n_examples: int | None = None
) -> ImageSet:
    """Load the first examples of one split of a data set, in its own order.

    "digits" is scikit-learn's (8x8, 1797 images, pixel = value / 16), shuffled once by
    ``numpy.random.RandomState(0).permutation(1797)``: 1000 for train, 297 for val, 500 for test. The others are
    torchvision's; their val split is the last tenth of the training images, and train is the rest.

    Args:
        dataset: One of ``DATASETS``.
        data_dir: The folder that torchvision calls ``root``; "digits" needs none.
        split: "train", "val" or "test".
        n_examples: How many, all by default.

    Returns:
        The images.

    Raises:
        UnusableInput: If the name, the split or the number cannot be served, or the files or a package are missing.
    """
    if dataset not in DATASETS:
        raise UnusableInput(f"unknown data set {dataset!r}: expected one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise UnusableInput(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    raw = _digits(split) if dataset == "digits" else _part(_torchvision(dataset, data_dir, split != "test"), split)
    n = _number_of_examples(n_examples, len(raw.labels), f"the {split} split of {dataset}")
    return _image_set(dataset, _Raw(raw.values[:n], raw.labels[:n], raw.white))


def _image_set(dataset: str, raw: _Raw) -> ImageSet:
    num_classes = 100 if dataset == "CIFAR100" else 10
    values, labels = raw.values.contiguous(), raw.labels.contiguous()
    check_labels(labels, len(values), num_classes)
    return ImageSet(dataset, values.float() / raw.white, labels, num_classes, tensors_sha256(values, labels))


def load_training_images(dataset: str, data_dir: Path | str | None = None) -> ImageSet:
    """Load all images that hosts train on: the train split of "digits"; train and val, in order, of the others.

    Args:
        dataset: One of ``DATASETS``.
        data_dir: As for ``load_images``.

    Raises:
        UnusableInput: As ``load_images`` does.
    """
    if dataset not in _TORCHVISION:
        return load_images(dataset, data_dir, "train")
    return _image_set(dataset, _torchvision(dataset, data_dir, train=True))


def images_from_tensors(pixels: Tensor, labels: Tensor, n_examples: int | None = None) -> ImageSet:
    """Make an image set of the caller's own tensors.

    Args:
        pixels: Shape (n, channels, height, width), floating point, in [0, 1].
        labels: Shape (n,), int64.
        n_examples: How many of the first ones, all by default.

    Returns:
        The images; the number of classes is taken to be the highest label + 1.

    Raises:
        UnusableInput: If shapes, types or ranges are others, or ``n_examples`` is out of range.
    """
    check_pixels(pixels)
    check_labels(labels, len(pixels))
    n = _number_of_examples(n_examples, len(pixels), "the given tensors")
    pixels, labels = pixels[:n].detach().cpu().float(), labels[:n].cpu()
    return ImageSet("tensors", pixels, labels, int(labels.max()) + 1, tensors_sha256(pixels, labels))


def _number_of_examples(wanted: int | None, available: int, where: str) -> int:
    if wanted is None:
        return available
    if not 1 <= wanted <= available:
        raise UnusableInput(f"expected n_examples from 1 to {available}, which is what {where} holds; got {wanted}")
    return wanted


def _package(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnusableInput(
            f'this data set is read by {name}, and {error.name} is not installed: pip install "guard-plugin[{extra}]"'
        ) from error


def _digits(split: str) -> _Raw:
    digits = _package("sklearn.datasets", "demo").load_digits()
    order = np.random.RandomState(0).permutation(1797)
    chosen = {"train": order[:1000], "val": order[1000:1297], "test": order[1297:]}[split]
    values = torch.from_numpy(digits.images[chosen].astype(np.uint8)).unsqueeze(1)
    return _Raw(values, torch.from_numpy(digits.target[chosen].astype(np.int64)), white=16)


def _torchvision(dataset: str, data_dir: Path | str | None, train: bool) -> _Raw:
    files, read = _TORCHVISION[dataset]
    if data_dir is None:
        raise UnusableInput(f"{dataset} needs a data folder, the one that holds {files}: none was given")
    if not Path(data_dir).is_dir():
        raise UnusableInput(f"expected a data folder that holds {files} for {dataset}, but {data_dir} is no folder")
    datasets = _package("torchvision.datasets", "bench")
    try:
        return read(getattr(datasets, dataset), data_dir, train)
    # torchvision checks the files with assert statements too.
    except (RuntimeError, OSError, ValueError, AssertionError, ModuleNotFoundError) as error:
        raise UnusableInput(
            f"{dataset} cannot be read: expected {files} in {data_dir}, as torchvision lays it out, unpacked. "
            f"Nothing is downloaded here: put the files there first. (torchvision: {error})"
        ) from error


def _part(raw: _Raw, split: str) -> _Raw:
    """The split: the last tenth of torchvision's training images is for validation."""
    if split == "test":
        return raw
    boundary = len(raw.labels) - len(raw.labels) // 10
    part = slice(boundary) if split == "train" else slice(boundary, None)
    return _Raw(raw.values[part], raw.labels[part])


def _mnist(dataset: Any, root: Path | str, train: bool) -> _Raw:
    images = dataset(root, train=train, download=False)
    return _Raw(images.data.unsqueeze(1), images.targets.long())


def _cifar(dataset: Any, root: Path | str, train: bool) -> _Raw:
    images = dataset(root, train=train, download=False)
    return _Raw(torch.from_numpy(images.data).permute(0, 3, 1, 2), torch.tensor(images.targets))


def _svhn(dataset: Any, root: Path | str, train: bool) -> _Raw:
    images = dataset(root, split="train" if train else "test", download=False)
    return _Raw(torch.from_numpy(images.data), torch.from_numpy(images.labels).long())


# What must lie in the data folder, and how torchvision's object is read.
_TORCHVISION: dict[str, tuple[str, Callable[[Any, Path | str, bool], _Raw]]] = {
    "MNIST": ("MNIST/raw/*-ubyte", _mnist),
    "FashionMNIST": ("FashionMNIST/raw/*-ubyte", _mnist),
    "CIFAR10": ("cifar-10-batches-py/", _cifar),
    "CIFAR100": ("cifar-100-python/", _cifar),
    "SVHN": ("train_32x32.mat and test_32x32.mat", _svhn),
}

DATASETS = ("digits", *_TORCHVISION)
