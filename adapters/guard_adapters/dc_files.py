"""The files that DC, DSA and DM write: ``res_{method}_{dataset}_{model}_{ipc}ipc.pt``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from guard_adapters.normalizations import DC_DATASETS, HostDataset
from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.arrays import whole_numbers
from guard_plugin.errors import UnusableInput
from guard_plugin.files import load_untrusted

__all__ = ["read_result"]

_NAME = re.compile(r"res_(?P<method>DC|DSA|DM)_(?P<dataset>.+)_(?P<model>[^_]+)_(?P<ipc>\d+)ipc\.pt")


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
    dataset = DC_DATASETS.get(match["dataset"])
    if dataset is None:
        raise UnusableInput(
            f"{path.name}: expected one of the data sets {', '.join(DC_DATASETS)}, got {match['dataset']!r}"
        )
    content = load_untrusted(path)
    experiments = content.get("data") if isinstance(content, Mapping) else None
    if not isinstance(experiments, list) or not experiments:
        raise UnusableInput(f"{path}: expected a dictionary whose 'data' lists one [images, labels] per experiment")
    return [_distilled_set(path, index, pair, match["model"], dataset) for index, pair in enumerate(experiments)]


def _distilled_set(path: Path, index: int, pair: Any, model: str, dataset: HostDataset) -> DistilledSet:
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair)):
        raise UnusableInput(f"{path}: expected [images, labels] as experiment {index}, got {type(pair).__name__}")
    images, labels = pair
    # The host writes class indices as int64; a fork may keep them in another type, or write probabilities.
    whole = whole_numbers(labels) if labels.dim() == 1 else None
    return DistilledSet(
        images=images.float(),
        labels=labels if whole is None else whole,
        num_classes=dataset.num_classes[0],
        normalization=dataset.normalization,
        dataset=dataset.name,
        arch=model,
    )
