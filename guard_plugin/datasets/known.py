"""The data sets that are read whole: scikit-learn's digits, and the most used ones of torchvision."""

from functools import partial

import numpy as np
import torch

from guard_plugin.datasets.parts import Part, Source, part_in_memory
from guard_plugin.optional import require

__all__ = ["DATASETS", "IN_MEMORY", "digits_source"]

# The class 0 of "letters" has no images: its labels are 1 to 26.
_EMNIST_CLASSES = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 27, "mnist": 10}

IN_MEMORY = {
    "MNIST": ("MNIST/raw/*-ubyte", 10),
    "FashionMNIST": ("FashionMNIST/raw/*-ubyte", 10),
    "CIFAR10": ("cifar-10-batches-py/", 10),
    "CIFAR100": ("cifar-100-python/", 100),
    "SVHN": ("train_32x32.mat and test_32x32.mat", 10),
    **{f"EMNIST-{kind}": (f"EMNIST/raw/emnist-{kind}-*-ubyte", n) for kind, n in _EMNIST_CLASSES.items()},
}
"""What the data folder must hold, and the number of classes, of each data set of torchvision's that is read whole."""

DATASETS = ("digits", *IN_MEMORY)


def digits_source() -> Source:
    """Open scikit-learn's digits: 1797 images of 8x8 pixels, where pixel = value / 16.

    The images are shuffled once by ``numpy.random.RandomState(0).permutation(1797)``: 1000 are the train split, the
    next 297 are val, and the last 500 are test.
    """
    splits = {"train": slice(1000), "val": slice(1000, 1297), "test": slice(1297, None)}
    return {split: partial(_digits, chosen) for split, chosen in splits.items()}


def _digits(chosen: slice) -> Part:
    install = 'pip install "guard-plugin[demo]"'
    digits = require("sklearn.datasets", needed_by="the data set digits", install=install).load_digits()
    numbers = np.random.RandomState(0).permutation(1797)[chosen]
    values = torch.from_numpy(digits.images[numbers].astype(np.uint8)).unsqueeze(1)
    return part_in_memory(values, torch.from_numpy(digits.target[numbers].astype(np.int64)), 10, white=16)
