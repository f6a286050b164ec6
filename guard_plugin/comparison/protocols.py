"""What two benchmarks must have in common before their numbers may be compared."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["OPTIONS", "differing_settings"]

OPTIONS = {
    "dataset": "--dataset",
    "split": None,
    "n_examples": "--n-examples",
    "data_sha256": "--data",
    "arch": "--arch",
    "recipe": "--recipe and --learning-rate",
    "seeds": "--seeds",
    "attacks": "--attacks and --eps",
    "source": "--source",
}
"""The settings of a protocol that must be the same -> the options of ``guard benchmark`` that set them, if any do."""

_LEARNED = "distilled set"


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Find where two protocols differ in a setting that must be the same for a comparison.

    A learning rate that was learned along with the images is part of what is compared, and may differ.

    Args:
        one: The "protocol" of results.json.
        other: Another one.

    Returns:
        Path of the setting, such as "recipe.epochs" -> its two values (None where it is missing).
    """
    pairs = {key: (_comparable(one.get(key)), _comparable(other.get(key))) for key in OPTIONS}
    return {path: values for key, (a, b) in pairs.items() for path, values in _differences(key, a, b)}


def _comparable(setting: Any) -> Any:
    if isinstance(setting, Mapping) and setting.get("learning_rate_source") == _LEARNED:
        return {key: value for key, value in setting.items() if key != "learning_rate"}
    return setting


def _differences(path: str, one: Any, other: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(f"{path}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _differences(f"{path}[{i}]", a, b)
    elif one != other:
        yield path, (one, other)
