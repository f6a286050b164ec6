"""Loading images by a data set's name."""

import re
from dataclasses import replace
from pathlib import Path

from guard_plugin.datasets.image_folder import folder_source
from guard_plugin.datasets.images import ImageSet, Part, Source, read_part
from guard_plugin.datasets.known import DATASETS, known_source
from guard_plugin.datasets.npz import npz_source
from guard_plugin.datasets.torchvision_sets import torchvision_source
from guard_plugin.errors import UnusableInput

__all__ = ["SPLITS", "load_images", "load_training_images"]

SPLITS = ("train", "val", "test")

_FOLDERS = {"imagefolder": "ImageFolder", "tinyimagenet": "TinyImageNet"}


def load_images(
    dataset: str, data_dir: Path | str | None = None, split: str = "test", n_examples: int | None = None
) -> ImageSet:
    """Load the first examples of one split of a data set.

    ``dataset`` is one of:

    - ``DATASETS``, whose images stay in the data set's own order;
    - another class of ``torchvision.datasets``, such as "STL10";
    - "ImageFolder": ``data_dir`` holds train/ and val/ or test/, each with one folder of pictures per class;
    - "TinyImageNet": the same, or that data set as published;
    - a file that ends in ".npz": see ``npz_source``.

    Of "ImageFolder", "TinyImageNet" and other classes of torchvision, whose files are often sorted by class, the first
    examples are those of the fixed permutation ``numpy.random.RandomState(0).permutation(n)`` of a split, and only they
    are read. Their names may end in "@" and a size, such as "ImageFolder@64": the shorter side of each image is then
    resized to 64 / 0.875, rounded, and 64x64 pixels are cropped from the centre. Without it, all images must have one
    size. Enlarged images make a stronger threat of the same eps, so compare results of one size only.

    Where a data set has no val split of its own, it is the last tenth of the training images, and train is the rest.

    Args:
        dataset: The name.
        data_dir: The folder that holds the data; that torchvision calls ``root``. "digits" needs none.
        split: "train", "val" or "test".
        n_examples: How many, all by default.

    Returns:
        The images.

    Raises:
        UnusableInput: If the name, the split or the number cannot be served, or the files or a package are missing.
        UnsafeFile: If reading a file would run code.
    """
    if split not in SPLITS:
        raise UnusableInput(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    name, source = _named(dataset, data_dir)
    return read_part(name, _split(name, source, split), n_examples, f"the {split} split of {name}")


def load_training_images(dataset: str, data_dir: Path | str | None = None) -> ImageSet:
    """Load all images that hosts train on: train, and val too where the data set has none of its own.

    Args:
        dataset: As for ``load_images``.
        data_dir: As for ``load_images``.

    Raises:
        UnusableInput: As ``load_images`` does.
        UnsafeFile: As ``load_images`` does.
    """
    name, source = _named(dataset, data_dir)
    return read_part(name, _own(name, source, "train"), None, f"the training images of {name}")


def _named(dataset: str, data_dir: Path | str | None) -> tuple[str, Source]:
    """The data set's name, as it is usually written, and what opens its parts."""
    match = re.fullmatch(r"(?P<name>.*)@(?P<size>[1-9]\d*)", dataset)
    name, size = (match["name"], int(match["size"])) if match else (dataset, None)
    at_once = name.endswith(".npz") or name in DATASETS
    if size and at_once:
        raise UnusableInput(f"expected no size behind {name}, whose images are measured as they are; got @{size}")
    if at_once:
        # The file's own name: where it lies is no part of what is measured.
        return (
            (Path(name).name, npz_source(name, data_dir))
            if name.endswith(".npz")
            else (name, known_source(name, data_dir))
        )
    folder = _FOLDERS.get(name.lower())
    source = folder_source(folder, data_dir, size) if folder else torchvision_source(name, data_dir, size)
    return f"{folder or name}{f'@{size}' if size else ''}", source


def _split(name: str, source: Source, split: str) -> Part:
    if split == "test" or "val" in source:
        return _own(name, source, split)
    train = _own(name, source, "train")
    boundary = len(train.order) - len(train.order) // 10
    return replace(train, order=train.order[:boundary] if split == "train" else train.order[boundary:])


def _own(name: str, source: Source, part: str) -> Part:
    if part not in source:
        raise UnusableInput(f"{name} holds no {part} split here, only {', '.join(source)}")
    return source[part]()
