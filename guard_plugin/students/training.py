"""What every recipe for training students is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import nn

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.students.soft_labels import LabelSource

__all__ = ["TrainingRecipe"]


class TrainingRecipe(ABC):
    """A way to train a student on a distilled set; its fields are all that it depends on.

    ``learning_rate_from_set`` says whether a learning rate that the distilled set brings goes before
    ``learning_rate``.
    """

    name: str
    epochs: int
    learning_rate: float
    learning_rate_from_set: bool

    @abstractmethod
    def fit(self, student: nn.Module, distilled: DistilledSet, epochs: Iterable[int]) -> None:
        """Train a student, in training mode and on its device.

        Args:
            student: The network.
            distilled: What it is trained on.
            epochs: ``range(self.epochs)``, perhaps with a progress bar.
        """

    @abstractmethod
    def with_learning_rate(self, learning_rate: float) -> "TrainingRecipe":
        """This recipe with a learning rate that goes before any other."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Every parameter, for JSON."""

    def for_set(self, distilled: DistilledSet) -> "TrainingRecipe":
        """This recipe with the learning rate that the set brings, where it takes one from there."""
        del distilled
        return self

    def with_labels(self, labels: LabelSource) -> "TrainingRecipe":
        """This recipe with labels from there.

        Raises:
            UnusableInput: If it trains on the labels that the distilled set brings.
        """
        del labels
        raise UnusableInput(f"--fkd and --teacher are for recipe sre2l, got recipe {self.name}: leave them away")

    def check(self, distilled: DistilledSet) -> None:  # noqa: B027 - many need none
        """Refuse, before anything is trained, a set that the recipe cannot train on.

        Raises:
            UnusableInput: If it cannot.
        """
