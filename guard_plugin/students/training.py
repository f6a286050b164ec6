"""What all recipes for training students have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.students.soft_labels import LabelSource

__all__ = ["TrainingRecipe", "check_last_batch"]

_OTHERWISE_CHOSEN = ("name", "labels", "learning_rate", "learning_rate_from_set")  # by options of their own


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"


# What a field of each annotated type reads from text.
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": _truth,
    "str": str,
    "str | None": lambda text: None if text.lower() == "none" else text,
}


class TrainingRecipe(ABC):
    """A way to train a student on a distilled set: a dataclass whose fields are all that it depends on.

    ``learning_rate_from_set`` says whether a learning rate of the distilled set goes before ``learning_rate``.
    """

    name: str
    epochs: int
    learning_rate: float
    batch_size: int
    learning_rate_from_set: bool

    @abstractmethod
    def fit(self, student: nn.Module, distilled: DistilledSet, epochs: Iterable[int]) -> None:
        """Train a student that is in training mode, on its device; ``epochs`` is ``range(self.epochs)``."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return every parameter, for JSON."""

    def values(self) -> dict[str, Any]:
        """Return the values that ``with_values`` can change, by name."""
        return {name: getattr(self, name) for name in self._settable()}

    def with_values(self, values: Mapping[str, Any]) -> TrainingRecipe:
        """Return this recipe with other values, by name: each as the recipe has it, or as text.

        Raises:
            UnusableInput: If there is no such value, or it cannot be that; the message lists all values.
        """
        settable = self._settable()
        unknown = [name for name in values if name not in settable]
        if unknown:
            raise UnusableInput(f"recipe {self.name} has no value {unknown[0]!r}: {self._listed()}")
        read = {name: self._read(settable[name], value) for name, value in values.items()}
        try:
            return replace(self, **read)  # type: ignore[type-var]
        except UnusableInput as error:
            raise UnusableInput(f"{error}; {self._listed()}") from error

    def _read(self, wanted: Field[Any], value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return _READERS[str(wanted.type)](value)
        except ValueError as error:
            raise UnusableInput(
                f"expected {wanted.name} of type {wanted.type}, got {value!r}: {self._listed()}"
            ) from error

    def _settable(self) -> dict[str, Field[Any]]:
        own: Any = self  # every recipe is a dataclass
        return {one.name: one for one in fields(own) if one.name not in _OTHERWISE_CHOSEN}

    def _listed(self) -> str:
        values = (f"{name}={value}" for name, value in self.values().items())
        return f"the values of recipe {self.name} are {', '.join(values)}; --learning-rate sets the learning rate"

    def with_learning_rate(self, learning_rate: float) -> TrainingRecipe:
        """Return this recipe with a learning rate that goes before any other."""
        return replace(self, learning_rate=learning_rate, learning_rate_from_set=False)  # type: ignore[type-var]

    def for_set(self, distilled: DistilledSet) -> TrainingRecipe:
        """Return this recipe with the learning rate that the set brings, if the recipe takes it from there."""
        if distilled.learning_rate is None or not self.learning_rate_from_set:
            return self
        return self.with_learning_rate(distilled.learning_rate)

    def with_labels(self, labels: LabelSource) -> TrainingRecipe:
        """Return this recipe with labels from another source, or refuse them where it trains on those of the set."""
        raise UnusableInput(
            f"--fkd and --teacher are for recipes of the SRe2L family (--recipe sre2l, sre2l-cifar, sre2l-tiny), got "
            f"recipe {self.name}: leave them out"
        )

    def check(self, distilled: DistilledSet) -> None:  # noqa: B027 - many need none
        """Refuse a set that the recipe cannot train on by ``UnusableInput``, before anything is trained."""

    def check_numbers(self) -> None:
        """Refuse fewer than one epoch or image per batch, a learning rate of 0, and numbers below 0 or not finite."""
        if self.epochs < 1 or self.batch_size < 1:
            found = f"epochs={self.epochs}, batch_size={self.batch_size}"
            raise UnusableInput(f"expected a recipe of at least one epoch and one image per batch, got {found}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UnusableInput(f"expected a learning rate that is finite and > 0, got {self.learning_rate}")
        for name, value in self.values().items():
            if isinstance(value, (int, float)) and not 0 <= value < math.inf:
                raise UnusableInput(f"expected a {name} that is finite and >= 0, got {value}")


def check_last_batch(
    network: Callable[[], Callable[[Tensor], Tensor]], distilled: DistilledSet, batch_size: int, *, who: str
) -> None:
    """Refuse a last batch of one image, before training meets it, if the network needs more to normalise by.

    BatchNorm needs more than one value per channel, and behind the last pooling one image may have but one.

    Args:
        network: Builds the network in training mode, or what calls it; called where there is such a batch.
        distilled: The images, one pass over which is cut into batches.
        batch_size: The images per batch.
        who: What messages call the network.

    Raises:
        UnusableInput: If the network does not take one image.
    """
    n = len(distilled.images)
    if batch_size > 1 and n % batch_size != 1:
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            network()(distilled.images[:1].cpu())
    except ValueError as error:
        fitting = next((size for size in range(batch_size + 1, n + 1) if n % size != 1), None)
        fix = f"--set batch_size={fitting} (for --fkd, relabel in such batches), or " if fitting else ""
        raise UnusableInput(
            f"expected batches that {who} can be trained on, but {n} image(s) in batches of {batch_size} leave one of "
            f"a single image ({error}): give {fix}a network without BatchNorm, such as --arch ConvNet"
        ) from error
