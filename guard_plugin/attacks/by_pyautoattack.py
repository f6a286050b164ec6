"""What the attacks that pyautoattack runs have in common."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

from torch import Tensor

from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Goal
from guard_plugin.attacks.norms import Norm
from guard_plugin.attacks.packages import required
from guard_plugin.attacks.remaining import Round, attack_standing
from guard_plugin.errors import UnusableInput

__all__ = ["LIBRARY_NORMS", "Attacked", "RunByPyAutoAttack", "TowardsTopClasses", "pyautoattack_module"]

LIBRARY_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
"""What pyautoattack calls the norms."""


@dataclass(frozen=True)
class Attacked:
    """The examples of one call, with the logits of their images as they are."""

    classifier: Classifier
    pixels: Tensor
    labels: Tensor
    indices: Tensor
    logits: Tensor

    def class_ranked(self, rank: int, rows: Tensor) -> Tensor:
        """The class with the rank-th largest logit, 1 for the largest, of each example in ``rows``."""
        ranked: Tensor = self.logits[rows].sort(dim=1).indices[:, -rank]
        return ranked


@dataclass(frozen=True)
class RunByPyAutoAttack(Attack):
    """An attack of one or more runs, each on the examples that withstood the earlier ones.

    An example that is wrong to begin with is left as it is, and so is one that withstands. Each run is pyautoattack's
    ``attack_single_run``: its ``perturb`` would draw one start for a whole batch.

    Args:
        steps: Iterations of a run, >= 1.

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    steps: int = 100

    def check_available(self) -> None:
        """Refuse where pyautoattack is not installed."""
        pyautoattack_module("autopgd_base", self.family)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise UnusableInput(f"expected {self.family} with steps >= 1, got {self.steps}")

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        # Where no gradient reaches the pixels, this says so; pyautoattack would fail with an error of torch's.
        classifier.gradient(pixels[:1], Goal(labels[:1]).cross_entropy())
        logits = classifier.logits(pixels)
        rounds = self._rounds(Attacked(classifier, pixels, labels, indices.to(pixels.device), logits))
        return attack_standing(pixels, logits.argmax(1) == labels, rounds, size=classifier.batch_size)

    @abstractmethod
    def _rounds(self, attacked: Attacked) -> Iterator[Round]:
        """The runs, in order."""


@dataclass(frozen=True)
class TowardsTopClasses(RunByPyAutoAttack):
    """An attack with one run towards each of the wrong classes that the model finds likeliest, the likeliest first.

    Args:
        target_classes: How many of them, >= 1; all wrong classes where there are not so many.
    """

    target_classes: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_classes < 1:
            raise UnusableInput(f"expected {self.family} with target_classes >= 1, got {self.target_classes}")

    def _ranks(self, logits: Tensor) -> range:
        return range(2, 2 + min(self.target_classes, logits.shape[1] - 1))


def pyautoattack_module(name: str, family: str) -> ModuleType:
    """Import a module of pyautoattack for an attack."""
    return required(f"pyautoattack.{name}", family=family, install='pip install "guard-plugin[bench]"')
