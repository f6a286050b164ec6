"""Loading images by the name of a data set."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from guard_plugin.datasets.image_folder import folder_source
from guard_plugin.datasets.image_set import ImageSet, check_count, check_labels, tensors_sha256
from guard_plugin.datasets.npz import npz_source
from guard_plugin.datasets.parts import SPLITS, Part, Source, part_in_memory
from guard_plugin.datasets.torchvision_sets import DATASETS, torchvision_name, torchvision_source
from guard_plugin.errors import UnusableInput
from guard_plugin.names import spelled
from guard_plugin.optional import require

__all__ = ["load_images", "load_training_images"]

_DIGITS = {"train": slice(1000), "val": slice(1000, 1297), "test": slice(1297, None)}
_FOLDERS = ("ImageFolder", "TinyImageNet")
_OURS = ("digits", *_FOLDERS)  # the other names are torchvision's


def load_images(
    dataset: str,
    data_dir: Path | str | None = None,
    split: str = "test",
    n_examples: int | None = None,
    num_classes: int | None = None,
) -> ImageSet:
    """Load the first examples of one split of a data set.

    ``dataset`` is one of:

    - ``DATASETS``, whose images stay in the data set's own order;
    - another class of ``torchvision.datasets``, such as "STL10";
    - "ImageFolder": ``data_dir`` holds train/ and val/ or test/, each with one folder of images per class;
    - "TinyImageNet": the same layout, or that data set as published;
    - a file that ends in ".npz": see ``npz_source``.

    "ImageFolder", "TinyImageNet" and other classes of torchvision often have files that are sorted by class. Their
    first examples are those of the fixed permutation ``numpy.random.RandomState(0).permutation(n)`` of a split, and
    only these are read. Such a name may end in "@" and a size, as in "ImageFolder@64": the shorter side of each image
    is then resized to 64 / 0.875, rounded, and 64x64 pixels are cropped from the centre. Without a size, all images
    must have one size. Enlarged images make a stronger threat of the same eps, so compare results of one size only.

    Where a data set has no val split of its own, val is the last tenth of the training images, and train is the rest.

    Args:
        dataset: The name, in any case, with hyphens and underscores or without.
        data_dir: The folder that holds the data, which torchvision calls ``root``. "digits" needs none.
        split: "train", "val" or "test".
        n_examples: The number of examples; all by default.
        num_classes: The number of classes, where the data set does not tell it, as some of torchvision's, or may have
            more than it shows: by default, a .npz file has the highest label + 1, and a tree one for each folder.

    Returns:
        The images.

    Raises:
        UnusableInput: If the name, the split or the number cannot be served, or the files or a package are missing.
        UnsafeFile: If reading a file would run code.
    """
    if split not in SPLITS:
        raise UnusableInput(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    name, source = _opened(dataset, data_dir, num_classes)
    if split == "test" or "val" in source:
        part = _own(name, source, split)
    else:
        part = _own(name, source, "train")
        boundary = len(part.order) - len(part.order) // 10
        part = replace(part, order=part.order[:boundary] if split == "train" else part.order[boundary:])
    if num_classes not in (None, part.num_classes):
        raise UnusableInput(f"{name} has {part.num_classes} classes, got --num-classes {num_classes}: leave it out")
    return _read(name, part, n_examples, f"the {split} split of {name}")


def load_training_images(dataset: str, data_dir: Path | str | None = None) -> ImageSet:
    """Load all images that hosts train on: train, and val too where the data set has no val split of its own.

    Arguments and errors are those of ``load_images``.
    """
    name, source = _opened(dataset, data_dir)
    return _read(name, _own(name, source, "train"), None, f"the training images of {name}")


def _opened(dataset: str, data_dir: Path | str | None, num_classes: int | None = None) -> tuple[str, Source]:
    """Return the data set's name, as it is usually written, and the functions that open its parts.

    ``num_classes`` counts where the data set does not tell it.
    """
    match = re.fullmatch(r"(.*)@([1-9]\d*)", dataset)
    name, size = (match[1], int(match[2])) if match else (dataset, None)
    is_npz = name.endswith(".npz")
    if not is_npz:
        name = spelled(name, _OURS)
        name = name if name in _OURS else torchvision_name(name)
    if size and (is_npz or name in DATASETS):
        raise UnusableInput(f"expected no size behind {name}, whose images are measured as they are; got @{size}")
    if is_npz:
        # Results must not depend on where the file lies.
        return Path(name).name, npz_source(name, data_dir, num_classes)
    if name == "digits":
        return name, {split: partial(_digits, chosen) for split, chosen in _DIGITS.items()}
    source = (folder_source if name in _FOLDERS else torchvision_source)(name, data_dir, size, num_classes)
    return f"{name}{f'@{size}' if size else ''}", source


def _digits(chosen: slice) -> Part:
    """Open a part of scikit-learn's digits: 1797 images of 8x8 pixels, where pixel = value / 16, in a fixed order."""
    install = 'pip install "guard-plugin[demo]"'
    digits = require("sklearn.datasets", needed_by="the data set digits", install=install).load_digits()
    numbers = np.random.RandomState(0).permutation(1797)[chosen]
    values = torch.from_numpy(digits.images[numbers].astype(np.uint8)).unsqueeze(1)
    return part_in_memory(values, torch.from_numpy(digits.target[numbers].astype(np.int64)), 10, white=16)


def _own(name: str, source: Source, part: str) -> Part:
    if part not in source:
        raise UnusableInput(f"{name} holds no {part} split here, only {', '.join(source)}")
    return source[part]()


def _read(name: str, part: Part, n_examples: int | None, where: str) -> ImageSet:
    """Read the first images of a part, which messages call ``where``."""
    numbers = part.order[: check_count(n_examples, len(part.order), where)]
    values, labels = (read.contiguous() for read in part.read(numbers))
    check_labels(labels, len(values), part.num_classes, what=f"labels of {name}")
    pixels = values.float().div_(part.white)
    return ImageSet(name, pixels, labels, part.num_classes, tensors_sha256(values, labels), part.class_names)
