"""The files that DC, DSA and DM write: ``res_{method}_{dataset}_{model}_{ipc}ipc.pt``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guard_plugin.distilled import DistilledSet, Normalization, load_untrusted
from guard_plugin.errors import UnusableInput

__all__ = ["read_result"]

_NAME = re.compile(r"res_(?P<method>DC|DSA|DM)_(?P<dataset>.+)_(?P<model>[^_]+)_(?P<ipc>\d+)ipc\.pt")

_NORMALIZATIONS = {
    "MNIST": Normalization((0.1307,), (0.3081,)),
    "FashionMNIST": Normalization((0.2861,), (0.3530,)),
    "SVHN": Normalization((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "CIFAR10": Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "CIFAR100": Normalization((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "TinyImageNet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "digits": Normalization((0.3051,), (0.3753,)),  # of examples/baselines/dc
}
_CLASSES = {"CIFAR100": 100, "TinyImageNet": 200}


def read_result(path: Path) -> list[DistilledSet]:
    """Read one distilled set per experiment.

    The host stores images as its networks saw them, normalised; the file's name tells the data set, and so the
    normalisation (read in the host's ``get_dataset``).

    Raises:
        UnusableInput: If the name or the contents are not those of the host.
        UnsafeFile: If reading the file would run code.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UnusableInput(
            f"expected a file named res_METHOD_DATASET_MODEL_IPCipc.pt, as DC writes it, got {path.name}: its name "
            f"tells the data set and so the normalisation; give it its name back"
        )
    dataset = match["dataset"]
    if dataset not in _NORMALIZATIONS:
        raise UnusableInput(f"{path.name}: expected one of the data sets {', '.join(_NORMALIZATIONS)}, got {dataset!r}")
    content = load_untrusted(path)
    experiments = content.get("data") if isinstance(content, Mapping) else None
    if not isinstance(experiments, list) or not experiments:
        raise UnusableInput(f"{path}: expected a dictionary whose 'data' lists one [images, labels] per experiment")
    return [_distilled_set(path, index, pair, match["model"], dataset) for index, pair in enumerate(experiments)]


def _indices(labels: Tensor) -> Tensor:
    """The host writes class indices as int64; a fork may keep them in another type, or write probabilities."""
    whole = labels.long()
    return whole if labels.dim() == 1 and torch.equal(whole.to(labels.dtype), labels) else labels


def _distilled_set(path: Path, index: int, pair: Any, model: str, dataset: str) -> DistilledSet:
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair)):
        raise UnusableInput(f"{path}: expected [images, labels] as experiment {index}, got {type(pair).__name__}")
    images, labels = pair
    return DistilledSet(
        images=images.float(),
        labels=_indices(labels),
        num_classes=_CLASSES.get(dataset, 10),
        normalization=_NORMALIZATIONS[dataset],
        dataset=dataset,
        arch=model,
    )
