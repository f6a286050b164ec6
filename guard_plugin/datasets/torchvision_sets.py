"""Any data set for classification that torchvision has, by its class's name."""

import difflib
import inspect
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from guard_plugin.datasets.images import Part, Source, data_folder, fixed_order, package
from guard_plugin.datasets.known import DATASETS, unreadable
from guard_plugin.datasets.pictures import read_pictures
from guard_plugin.errors import UnusableInput

__all__ = ["torchvision_source"]

_FILES = "its files"
_TRAIN = ("train", "trainval", "train-standard")
_VAL = ("val", "valid")

# Of those whose objects do not tell it.
_NUM_CLASSES = {"FER2013": 7, "GTSRB": 43, "PCAM": 2, "USPS": 10, "Flowers102": 102, "StanfordCars": 196}

_INSTEAD = "arrange it as ImageFolder (train/ and test/, one folder per class) or as .npz"


def torchvision_source(name: str, data_dir: Path | str | None, size: int | None) -> Source:
    """Open a data set of torchvision's, without downloading.

    Its images are in the order of ``numpy.random.RandomState(0).permutation(n)``. Where torchvision gives it a "val"
    and no "test", "val" is the test split.

    Args:
        name: Its class's name in ``torchvision.datasets``.
        data_dir: The folder that torchvision calls ``root``.
        size: As for ``read_pictures``.

    Raises:
        UnusableInput: If there is no such data set, or it cannot be measured on.
    """
    kind = _kind(package("torchvision.datasets", "bench"), name)
    root = data_folder(name, data_dir, _FILES)
    return {part: partial(_part, name, kind, root, chosen, size) for part, chosen in _parts(name, kind, root).items()}


def _kind(datasets: ModuleType, name: str) -> Any:
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
    """The arguments that choose each part."""
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
    """Those that torchvision lists when it is asked for one that does not exist."""
    try:
        kind(root, split="?")
    except Exception as error:  # each data set fails in its own way
        listed = re.search(r"Valid values are \{(.*)\}", str(error))
        if listed is None:
            raise unreadable(name, root, _FILES, error) from error
        return re.findall(r"'([^']+)'", listed[1])
    raise UnusableInput(f"{name} of torchvision does not tell its splits: {_INSTEAD}")


def _part(name: str, kind: Any, root: Path, chosen: Mapping[str, Any], size: int | None) -> Part:
    offline = {"download": False} if "download" in inspect.signature(kind).parameters else {}
    try:
        dataset = kind(root, **chosen, **offline)
        n = len(dataset)
    except Exception as error:  # each data set fails in its own way
        raise unreadable(name, root, _FILES, error) from error
    where = ", ".join(f"{key}={value!r}" for key, value in chosen.items())

    def call(number: int) -> str:
        return f"image {number} of {name}({where})"

    read = partial(read_pictures, dataset.__getitem__, name=name, call=call, size=size)
    return Part(fixed_order(n), _num_classes(name, dataset), read)


def _num_classes(name: str, dataset: Any) -> int:
    classes = getattr(dataset, "classes", None) or getattr(dataset, "class_to_idx", None)
    if classes:
        return len(classes)
    if name not in _NUM_CLASSES:
        raise UnusableInput(f"{name} of torchvision does not tell its number of classes: {_INSTEAD}")
    return _NUM_CLASSES[name]
