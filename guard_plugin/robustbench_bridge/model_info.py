"""Results in RobustBench's own format, for its leaderboard: ./model_info/DATASET/THREAT_MODEL/MODEL.json."""

from __future__ import annotations

import json
from pathlib import Path

from guard_plugin.errors import UnusableInput, unknown
from guard_plugin.files import atomic_file, explain_write_errors, read_json_object

__all__ = ["THREAT_MODELS", "model_info_path", "write_model_info"]

# RobustBench's keys, in its order.
_KEYS = (
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps",
    "clean_acc", "reported", "corruptions_acc", "corruptions_acc_3d", "corruptions_mce", "corruptions_mce_3d",
    "autoattack_acc", "footnote",
)  # fmt: skip
# Threat model -> the keys of its accuracy and of its mean corruption error.
_FIELDS = {
    "Linf": ("autoattack_acc", None),
    "L2": ("autoattack_acc", None),
    "corruptions": ("corruptions_acc", "corruptions_mce"),
    "corruptions_3d": ("corruptions_acc_3d", "corruptions_mce_3d"),
}
THREAT_MODELS = tuple(_FIELDS)


def model_info_path(dataset: str, threat_model: str, model_name: str) -> Path:
    """Return where RobustBench keeps a model's results, relative to the current folder.

    Raises:
        UnusableInput: If a file cannot have one of the names, or the threat model is not one of RobustBench's.
    """
    if threat_model not in _FIELDS:
        raise UnusableInput(unknown("threat model", threat_model, THREAT_MODELS))
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
    """Write a model's accuracies as RobustBench does, and keep the other values that the file already holds.

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
        UnusableInput: If a name is not usable, or the file holds no JSON object or cannot be written.
    """
    path = model_info_path(dataset, threat_model, model_name)
    accuracy_key, mce_key = _FIELDS[threat_model]
    measured = {"dataset": dataset, "eps": eps, "clean_acc": _percent(clean), accuracy_key: _percent(robust)}
    if mce_key is not None and mce is not None:
        measured[mce_key] = _percent(mce)
    known = read_json_object(path) if path.exists() else dict.fromkeys(_KEYS)
    known.update({key: value for key, value in measured.items() if value is not None})
    fix = "Make room, or run in another folder"
    with explain_write_errors(path, fix), atomic_file(path) as file:
        file.write(json.dumps(known, indent=2).encode())
    return path


def _percent(fraction: float) -> str:
    return str(round(float(fraction) * 100, 2))
