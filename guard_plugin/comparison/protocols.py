"""When two benchmarks were measured in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from guard_plugin.versions import strict_zip

__all__ = ["OPTIONS", "differing_settings"]

OPTIONS = {
    "dataset": "--dataset",
    "split": None,
    "n_examples": "--n-examples",
    "data_sha256": "--data",
    "num_classes": "--num-classes",
    "arch": "--arch",
    "recipe": "--recipe, --epochs, --set and --learning-rate",
    "attacks": "--attacks and --eps",
    "source": "--source",
}
"""The settings of a protocol that must be the same -> the options of ``guard benchmark`` that set them, if any do."""

_LEARNED = "distilled set"
_MAY_BE_UNTOLD = "num_classes"  # earlier results do not have it


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Find where two protocols differ in a setting that must be the same: path, such as "recipe.epochs" -> two values.

    A learning rate that was learned along with the images is part of what is compared, and may differ. So may the words
    for a radius: 16/510 is 8/255. A number of classes that one of them does not tell is taken to be that of the other.
    """
    told = [key for key in OPTIONS if key != _MAY_BE_UNTOLD or (key in one and key in other)]
    pairs = {key: (_comparable(one.get(key)), _comparable(other.get(key))) for key in told}
    return {path: values for key, (a, b) in pairs.items() for path, values in _differences(key, a, b)}


def _comparable(setting: Any) -> Any:
    if isinstance(setting, Mapping) and setting.get("learning_rate_source") == _LEARNED:
        return {key: value for key, value in setting.items() if key != "learning_rate"}
    return setting


def _differences(path: str, one: Any, other: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        same_radius = "eps_value" in one and one["eps_value"] == other.get("eps_value")
        for key in dict.fromkeys([*one, *other]):
            if not (key == "eps" and same_radius):
                yield from _differences(f"{path}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(strict_zip(one, other)):
            yield from _differences(f"{path}[{i}]", a, b)
    elif one != other:
        yield path, (one, other)
