"""Attacks of several rounds, each on the examples that remain."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.balls import Norm
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import PerExample, where_rows

__all__ = ["AttackInRounds", "AttackInRuns", "Examples", "Round", "TowardsTopClasses"]


@dataclass(frozen=True)
class Examples(PerExample):
    """Examples, with the logits of their unattacked pixels."""

    pixels: Tensor
    labels: Tensor
    indices: Tensor
    logits: Tensor


Round = Callable[[Examples], tuple[Tensor, Tensor]]
"""Attacks examples once; returns their images, and whether each image fools, shape (n,), bool."""


@dataclass(frozen=True)
class AttackInRounds(Attack):
    """An attack of one or more rounds, each on the examples that the earlier rounds did not fool.

    An example that is misclassified without an attack keeps its pixels, and so does one that no round fools.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    in_batches: ClassVar[bool] = False
    """Whether a round is given one batch at a time, instead of all the examples that remain."""

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        logits = classifier.logits(pixels)
        self.check_classes(logits.shape[1])
        examples = Examples(pixels, labels, indices.to(pixels.device), logits)
        adversarial, remaining = pixels.clone(), logits.argmax(1) == labels
        size = classifier.batch_size if self.in_batches else len(pixels)
        for attack in self._rounds(classifier, logits.shape[1]):
            # The examples that remain after the last round, of which there may be none.
            for rows in torch.split(remaining.nonzero()[:, 0], size):
                if len(rows):
                    images, fooled = attack(examples.of(rows))
                    adversarial[rows] = where_rows(fooled, images, adversarial[rows])
                    remaining[rows] = ~fooled
        return adversarial

    @abstractmethod
    def _rounds(self, classifier: Classifier, num_classes: int) -> Iterable[Round]:
        """Return the rounds, in order."""


@dataclass(frozen=True)
class AttackInRuns(AttackInRounds):
    """An attack whose rounds are runs of the same kind, each of ``steps`` iterations."""

    _at_least_1: ClassVar[Sequence[str]] = ("steps",)

    steps: int = 100

    def _rounds(self, classifier: Classifier, num_classes: int) -> Iterable[Round]:
        return [partial(self._run, classifier, rank) for rank in self._ranks(num_classes)]

    def _ranks(self, num_classes: int) -> Sequence[int]:
        """Return the number of each run: 0 for an untargeted run, else the rank of the class that it aims at."""
        return (0,)

    @abstractmethod
    def _run(self, classifier: Classifier, rank: int, examples: Examples) -> tuple[Tensor, Tensor]:
        """Run the attack once, as a round."""


@dataclass(frozen=True)
class TowardsTopClasses(AttackInRuns):
    """An attack with one run towards each of the likeliest ``target_classes`` wrong classes, the likeliest first."""

    _at_least_1: ClassVar[Sequence[str]] = ("steps", "target_classes")

    target_classes: int = 9

    def _ranks(self, num_classes: int) -> Sequence[int]:
        return range(2, 2 + min(self.target_classes, num_classes - 1))
