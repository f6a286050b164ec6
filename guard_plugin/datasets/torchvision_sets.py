"""The data sets for classification that torchvision has, by the names of its classes."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from guard_plugin.datasets.parts import Part, Source, data_folder, part_in_memory, part_of_files
from guard_plugin.distilled.arrays import channels_first
from guard_plugin.errors import UnusableInput
from guard_plugin.names import spelled
from guard_plugin.optional import require

__all__ = ["DATASETS", "torchvision_name", "torchvision_source"]

# The class 0 of "letters" has no images: its labels are 1 to 26.
_EMNIST_CLASSES = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 27, "mnist": 10}

# The data sets that are read whole: what the data folder must hold, and the number of classes.
_IN_MEMORY = {
    "MNIST": ("MNIST/raw/*-ubyte", 10),
    "FashionMNIST": ("FashionMNIST/raw/*-ubyte", 10),
    "CIFAR10": ("cifar-10-batches-py/", 10),
    "CIFAR100": ("cifar-100-python/", 100),
    "SVHN": ("train_32x32.mat and test_32x32.mat", 10),
    **{f"EMNIST-{kind}": (f"EMNIST/raw/emnist-{kind}-*-ubyte", n) for kind, n in _EMNIST_CLASSES.items()},
}

DATASETS = ("digits", *_IN_MEMORY)

_FILES = "its files"
_TRAIN = ("train", "trainval", "train-standard")
_VAL = ("val", "valid")

# The data sets whose objects do not hold their number of classes.
_NUM_CLASSES = {"FER2013": 7, "GTSRB": 43, "PCAM": 2, "USPS": 10, "Flowers102": 102, "StanfordCars": 196}

_INSTEAD = "arrange it as ImageFolder (train/ and test/, one folder per class) or as .npz"


def torchvision_name(name: str) -> str:
    """Return torchvision's name of a data set, which users write in any case; what it does not have, as it is."""
    datasets = require("torchvision.datasets", needed_by=f"the data set {name}")
    return spelled(name, (*DATASETS, *datasets.__all__))


def torchvision_source(name: str, data_dir: Path | str | None, size: int | None, num_classes: int | None) -> Source:
    """Open a data set of torchvision's, without downloading it.

    ``name`` is one of ``DATASETS``, or another class of ``torchvision.datasets``, whose images are brought to ``size``
    if that is given. ``num_classes`` counts where that class does not tell it. Where torchvision gives a data set a
    "val" and no "test", "val" is the test split.
    """
    datasets = require("torchvision.datasets", needed_by=f"the data set {name}")
    if name in _IN_MEMORY:
        root = data_folder(name, data_dir, _IN_MEMORY[name][0])
        kind = getattr(datasets, name.partition("-")[0])
        return {part: partial(_whole_part, name, kind, root, part) for part in ("train", "test")}
    kind = _dataset_class(datasets, name)
    root = data_folder(name, data_dir, _FILES)
    parts = _parts(name, kind, root).items()
    return {part: partial(_part, name, kind, root, chosen, size, num_classes) for part, chosen in parts}


def _whole_part(name: str, kind: Any, root: Path, part: str) -> Part:
    files, num_classes = _IN_MEMORY[name]
    chosen: dict[str, Any] = {"split": part} if name == "SVHN" else {"train": part == "train"}
    if name.startswith("EMNIST-"):
        chosen["split"] = name.removeprefix("EMNIST-")
    with _explained(name, kind, root, files):
        dataset = kind(root, **chosen, download=False)
        values = channels_first(torch.as_tensor(dataset.data), name)
        labels = torch.as_tensor(dataset.labels if name == "SVHN" else dataset.targets).long()
    return part_in_memory(values, labels, num_classes)


def _part(
    name: str, kind: Any, root: Path, chosen: Mapping[str, Any], size: int | None, num_classes: int | None
) -> Part:
    offline = {"download": False} if "download" in inspect.signature(kind).parameters else {}
    with _explained(name, kind, root, _FILES):
        dataset = kind(root, **chosen, **offline)
        n = len(dataset)
    split = ", ".join(f"{key}={value!r}" for key, value in chosen.items())
    where = f"of {name}({split})"
    classes = getattr(dataset, "classes", None) or getattr(dataset, "class_to_idx", None)
    num_classes = len(classes) if classes else _NUM_CLASSES.get(name, num_classes)
    if num_classes is None:
        raise UnusableInput(f"{name} of torchvision does not tell its number of classes: give --num-classes")
    return part_of_files(
        dataset.__getitem__, n, num_classes, dataset=name, name=lambda number: f"image {number} {where}", size=size
    )


@contextmanager
def _explained(name: str, kind: Any, root: Path, files: str) -> Iterator[None]:
    """Tell the user which files torchvision misses or finds damaged, in place of whatever it raises."""
    damaged: list[str] = []
    try:
        with _failed_checksums(kind, damaged):
            yield
    except ImportError as error:
        raise UnusableInput(f"{name} of torchvision needs a package that is not installed: {error}") from error
    except Exception as error:  # each data set fails in its own way, also with assert statements
        if damaged:
            problem = (
                f"{damaged[0]} is there, but its checksum is not the one that torchvision expects: it is damaged, "
                f"incomplete or another version. Put the original there"
            )
        elif any(root.glob(files)):
            problem = f"{root / files} is there, but incomplete, damaged or still packed. Put the original there"
        else:
            problem = (
                f"expected {files} in {root}, as torchvision lays it out, unpacked. Nothing is downloaded here: put "
                f"the files there first"
            )
        raise UnusableInput(f"{name} cannot be read: {problem}. (torchvision: {error})") from error


@contextmanager
def _failed_checksums(kind: Any, damaged: list[str]) -> Iterator[None]:
    """Note the files that are there and whose checksum torchvision refuses, which it calls missing."""
    module = sys.modules.get(kind.__module__)
    check: Any = getattr(module, "check_integrity", None)

    def noted(file: str | Path, md5: str | None = None) -> Any:
        intact = check(file, md5)
        if not intact and md5 and Path(file).is_file():
            damaged.append(str(file))
        return intact

    with nullcontext() if check is None else patch.object(module, "check_integrity", noted):
        yield


def _dataset_class(datasets: Any, name: str) -> Any:
    """Return a class of ``torchvision.datasets``, and refuse one that robustness cannot be measured on."""
    kind = getattr(datasets, name, None) if name in datasets.__all__ else None
    if not inspect.isclass(kind):
        lower = {known.lower(): known for known in (*DATASETS, *datasets.__all__)}
        near = [lower[close] for close in difflib.get_close_matches(name.lower(), lower, n=3)]
        raise UnusableInput(
            f"unknown data set {name!r}: expected one of {', '.join(DATASETS)}, another class of torchvision.datasets, "
            f"ImageFolder, TinyImageNet, or a .npz file{'; close to it: ' + ', '.join(near) if near else ''}"
        )
    variants = [known for known in DATASETS if known.startswith(f"{name}-")]
    if variants:
        raise UnusableInput(f"{name} is several data sets: expected one of {', '.join(variants)}")
    parameters = inspect.signature(kind).parameters
    if not {"train", "split"} & parameters.keys():
        raise UnusableInput(
            f"{name} has no training and test splits of its own in torchvision, so a network might be measured on what "
            f"it was trained on: {_INSTEAD}, divided as the training was"
        )
    needed = [one for one in parameters.values() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    more = [one.name for one in needed if one.name not in ("root", "train", "split")]
    if more:
        raise UnusableInput(f"{name} of torchvision needs {', '.join(more)}, which cannot be given here: {_INSTEAD}")
    return kind


def _parts(name: str, kind: Any, root: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the arguments by which torchvision's class opens each part."""
    if "train" in inspect.signature(kind).parameters:
        return {"train": {"train": True}, "test": {"train": False}}
    names = _split_names(name, kind, root)
    val = next((one for one in _VAL if one in names), None)
    train = next((one for one in _TRAIN if one in names), None)
    found = {"train": train, "test": "test" if "test" in names else val, "val": val if "test" in names else None}
    if not found["test"]:
        raise UnusableInput(f"{name} has no split 'test' or 'val' in torchvision, only {', '.join(names)}: {_INSTEAD}")
    return {part: {"split": split} for part, split in found.items() if split}


def _split_names(name: str, kind: Any, root: Path) -> list[str]:
    """Return the splits that torchvision's class lists when it is asked for one that does not exist."""
    with _explained(name, kind, root, _FILES):
        try:
            kind(root, split="?")
        except ValueError as error:
            if listed := re.search(r"Valid values are \{(.*)\}", str(error)):
                return re.findall(r"'([^']+)'", listed[1])
            raise
    raise UnusableInput(f"{name} of torchvision does not tell its splits: {_INSTEAD}")
