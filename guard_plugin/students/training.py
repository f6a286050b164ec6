"""What all recipes for training students have in common."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.students.soft_labels import LabelSource

__all__ = ["TrainingRecipe"]


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

    def with_learning_rate(self, learning_rate: float) -> "TrainingRecipe":
        """Return this recipe with a learning rate that goes before any other."""
        return replace(self, learning_rate=learning_rate, learning_rate_from_set=False)  # type: ignore[type-var]

    def for_set(self, distilled: DistilledSet) -> "TrainingRecipe":
        """Return this recipe with the learning rate that the set brings, if the recipe takes it from there."""
        if distilled.learning_rate is None or not self.learning_rate_from_set:
            return self
        return self.with_learning_rate(distilled.learning_rate)

    def with_labels(self, labels: LabelSource) -> "TrainingRecipe":
        """Return this recipe with labels from another source, or refuse them where it trains on those of the set."""
        raise UnusableInput(f"--fkd and --teacher are for recipe sre2l, got recipe {self.name}: leave them away")

    def check(self, distilled: DistilledSet) -> None:  # noqa: B027 - many need none
        """Refuse a set that the recipe cannot train on by ``UnusableInput``, before anything is trained."""

    def check_numbers(self) -> None:
        """Refuse a recipe without an epoch, without an image per batch, or without a learning rate > 0."""
        if self.epochs < 1 or self.batch_size < 1:
            found = f"epochs={self.epochs}, batch_size={self.batch_size}"
            raise UnusableInput(f"expected a recipe of at least one epoch and one image per batch, got {found}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UnusableInput(f"expected a learning rate that is finite and > 0, got {self.learning_rate}")
