"""The data sets that fit into memory and are read at once: scikit-learn's digits, and torchvision's most used ones."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from guard_plugin.datasets.images import Part, Raw, Source, data_folder, package
from guard_plugin.errors import UnusableInput

__all__ = ["DATASETS", "known_source", "unreadable"]


def known_source(name: str, data_dir: Path | str | None) -> Source:
    """Open one of ``DATASETS``.

    "digits" is scikit-learn's (8x8, 1797 images, pixel = value / 16), shuffled once by
    ``numpy.random.RandomState(0).permutation(1797)``: 1000 for train, 297 for val, 500 for test.

    Args:
        name: Which one.
        data_dir: The folder that torchvision calls ``root``; "digits" needs none.
    """
    if name == "digits":
        return {split: partial(_digits, split) for split in ("train", "val", "test")}
    return {split: partial(_torchvision, name, data_dir, split == "train") for split in ("train", "test")}


def unreadable(name: str, data_dir: Path, files: str, error: Exception) -> UnusableInput:
    """The error that tells what torchvision missed.

    Args:
        name: The data set's.
        data_dir: Where it looked.
        files: What must lie there.
        error: What it raised.
    """
    return UnusableInput(
        f"{name} cannot be read: expected {files} in {data_dir}, as torchvision lays it out, unpacked. "
        f"Nothing is downloaded here: put the files there first. (torchvision: {error})"
    )


def _held(raw: Raw, num_classes: int) -> Part:
    def read(numbers: NDArray[Any]) -> Raw:
        chosen = torch.from_numpy(numbers)
        return Raw(raw.values[chosen], raw.labels[chosen], raw.white)

    return Part(np.arange(len(raw.labels)), num_classes, read)


def _digits(split: str) -> Part:
    digits = package("sklearn.datasets", "demo").load_digits()
    order = np.random.RandomState(0).permutation(1797)
    chosen = {"train": order[:1000], "val": order[1000:1297], "test": order[1297:]}[split]
    values = torch.from_numpy(digits.images[chosen].astype(np.uint8)).unsqueeze(1)
    return _held(Raw(values, torch.from_numpy(digits.target[chosen].astype(np.int64)), white=16), 10)


def _torchvision(name: str, data_dir: Path | str | None, train: bool) -> Part:
    files, num_classes, read = _TORCHVISION[name]
    root = data_folder(name, data_dir, files)
    datasets = package("torchvision.datasets", "bench")
    try:
        raw = read(getattr(datasets, name.partition("-")[0]), root, train)
    # torchvision checks the files with assert statements too.
    except (RuntimeError, OSError, ValueError, AssertionError, ModuleNotFoundError) as error:
        raise unreadable(name, root, files, error) from error
    return _held(raw, num_classes)


def _mnist(dataset: Any, root: Path, train: bool, **settings: str) -> Raw:
    images = dataset(root, train=train, download=False, **settings)
    return Raw(images.data.unsqueeze(1), images.targets.long())


def _cifar(dataset: Any, root: Path, train: bool) -> Raw:
    images = dataset(root, train=train, download=False)
    return Raw(torch.from_numpy(images.data).permute(0, 3, 1, 2), torch.tensor(images.targets))


def _svhn(dataset: Any, root: Path, train: bool) -> Raw:
    images = dataset(root, split="train" if train else "test", download=False)
    return Raw(torch.from_numpy(images.data), torch.from_numpy(images.labels).long())


# "letters" has labels from 1 to 26, and so a class 0 without images.
_EMNIST = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 27, "mnist": 10}

# What must lie in the data folder, the number of classes, and how torchvision's object is read.
_TORCHVISION: dict[str, tuple[str, int, Callable[[Any, Path, bool], Raw]]] = {
    "MNIST": ("MNIST/raw/*-ubyte", 10, _mnist),
    "FashionMNIST": ("FashionMNIST/raw/*-ubyte", 10, _mnist),
    "CIFAR10": ("cifar-10-batches-py/", 10, _cifar),
    "CIFAR100": ("cifar-100-python/", 100, _cifar),
    "SVHN": ("train_32x32.mat and test_32x32.mat", 10, _svhn),
    **{
        f"EMNIST-{kind}": (f"EMNIST/raw/emnist-{kind}-*-ubyte", num_classes, partial(_mnist, split=kind))
        for kind, num_classes in _EMNIST.items()
    },
}

DATASETS = ("digits", *_TORCHVISION)
