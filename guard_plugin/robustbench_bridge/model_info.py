"""Results in RobustBench's own format, for its leaderboard: ./model_info/DATASET/THREAT_MODEL/MODEL.json."""

import json
from pathlib import Path
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file

__all__ = ["model_info_path", "write_model_info"]

# RobustBench's keys, in its order.
_KEYS = (
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "corruptions_acc",
    "corruptions_acc_3d",
    "corruptions_mce",
    "corruptions_mce_3d",
    "autoattack_acc",
    "footnote",
)
# Threat model -> the keys of its accuracy and of its mean corruption error.
_FIELDS = {
    "Linf": ("autoattack_acc", None),
    "L2": ("autoattack_acc", None),
    "corruptions": ("corruptions_acc", "corruptions_mce"),
    "corruptions_3d": ("corruptions_acc_3d", "corruptions_mce_3d"),
}


def model_info_path(dataset: str, threat_model: str, model_name: str) -> Path:
    """Where RobustBench keeps a model's results, relative to the current folder.

    Raises:
        UnusableInput: If a name is not usable as that of a file, or the threat model is not RobustBench's.
    """
    if threat_model not in _FIELDS:
        raise UnusableInput(f"unknown threat model {threat_model!r}: expected one of {', '.join(_FIELDS)}")
    for name in (dataset, model_name):
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise UnusableInput(f"expected a name that a file can have, without a folder; got {name!r}")
    # Both corruption threat models share a file.
    return Path("model_info") / dataset / threat_model.removesuffix("_3d") / f"{model_name}.json"


def write_model_info(
    dataset: str,
    threat_model: str,
    model_name: str,
    *,
    clean: float,
    robust: float,
    eps: float | None = None,
    mce: float | None = None,
) -> Path:
    """Write a model's accuracies as RobustBench does, into what the file already holds.

    Keys that this measurement says nothing about keep the values that they have, or are null.

    Args:
        dataset: Name of the data set, any.
        threat_model: "Linf", "L2", "corruptions" or "corruptions_3d".
        model_name: The file's name.
        clean: Accuracy on the images as they are, a fraction.
        robust: Accuracy in the threat model, a fraction.
        eps: Radius of the ball; None for corruptions.
        mce: Mean corruption error, a fraction; None where it is not defined.

    Returns:
        The file.

    Raises:
        UnusableInput: If a name is not usable, or the file holds something else.
    """
    path = model_info_path(dataset, threat_model, model_name)
    accuracy_key, mce_key = _FIELDS[threat_model]
    measured = {"dataset": dataset, "eps": eps, "clean_acc": _percent(clean), accuracy_key: _percent(robust)}
    if mce_key is not None and mce is not None:
        measured[mce_key] = _percent(mce)
    known = _read(path) if path.exists() else dict.fromkeys(_KEYS)
    known.update({key: value for key, value in measured.items() if value is not None})
    with atomic_file(path) as file:
        file.write(json.dumps(known, indent=2).encode())
    return path


def _percent(fraction: float) -> str:
    return str(round(float(fraction) * 100, 2))


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableInput(f"{path} cannot be read as JSON, so no result is added to it: {error}") from error
    if not isinstance(known, dict):
        raise UnusableInput(f"{path} holds {type(known).__name__}, not the object that RobustBench keeps there")
    return known
