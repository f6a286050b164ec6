"""What is done with a handful of examples: look at them, differentiate, attack."""

import time
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guard_plugin.attacks import Attack, Classifier, Criterion, check_classes
from guard_plugin.attacks.balls import distance
from guard_plugin.datasets import ImageSet
from guard_plugin.datasets.image_set import check_labels
from guard_plugin.evaluation.costs import Cost, CountedModel
from guard_plugin.evaluation.records import Outcome
from guard_plugin.networks.pixel_model import check_classifier, finite_logits

__all__ = ["Model", "Worker"]

Model = Callable[[], nn.Module]


class Worker:
    """Works on examples of an image set; the models are made and checked when first used.

    Args:
        model: Gives the classifier in pixel space that is measured.
        source: Gives the one on which transferred attacks are made, where there is one.
        images: The examples.
        attacks: What the models must be fit for.
        batch_size: Examples per pass, >= 1.
        device: Where to compute.
    """

    def __init__(
        self,
        model: Model,
        source: Model | None,
        images: ImageSet,
        attacks: Mapping[str, Attack],
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.batch_size = batch_size
        self._attacks = attacks
        self._makers = model, source
        self._images = images
        self._device = device
        self._counted: list[CountedModel] = []

    def look(self, examples: NDArray[np.int64]) -> Outcome:
        """Correct: the model's choice is the label."""
        begin = self._now()
        pixels, labels, _ = self._rows(examples)
        return self._outcome(begin, examples, self._choices(pixels, labels) == labels)

    def differentiate(self, examples: NDArray[np.int64]) -> Outcome:
        """Correct: the loss has a gradient that is not zero in every pixel."""
        begin = self._now()
        pixels, labels, _ = self._rows(examples)
        _, gradients = self._classifier(self._target, labels).gradient(pixels, Criterion(labels).cross_entropy())
        return self._outcome(begin, examples, gradients.flatten(1).ne(0).any(1))

    def attack(self, attack: Attack, examples: NDArray[np.int64]) -> Outcome:
        """Correct: the model's choice is the label, also after the attack."""
        begin = self._now()
        pixels, labels, indices = self._rows(examples)
        model = self._source if attack.transfer else self._target
        images = attack(model, pixels, labels, indices=indices, batch_size=self.batch_size)
        choices = self._choices(images, labels)
        targets = attack.criterion(self._classifier(model, labels), pixels, labels, indices).targets
        reached = None if targets is None else choices == targets
        farthest = float(distance(attack.norm, images, pixels).max())
        return self._outcome(begin, examples, choices == labels, reached, farthest)

    def _rows(self, examples: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.from_numpy(examples)
        return self._images.pixels[rows].to(self._device), self._images.labels[rows].to(self._device), rows

    def _outcome(
        self,
        begin: Cost,
        examples: NDArray[np.int64],
        correct: Tensor,
        reached: Tensor | None = None,
        farthest: float = 0.0,
    ) -> Outcome:
        reached = torch.zeros_like(correct) if reached is None else reached
        cost = self._now() - begin
        return Outcome(examples, correct.cpu().numpy(), reached.cpu().numpy(), farthest, cost)

    def _now(self) -> Cost:
        return Cost(
            time.perf_counter(),
            sum(model.forwards for model in self._counted),
            sum(model.backwards for model in self._counted),
        )

    def _choices(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return finite_logits(self._classifier(self._target, labels).logits, pixels).argmax(1)

    def _classifier(self, model: nn.Module, labels: Tensor) -> Classifier:
        return Classifier(model, highest=int(labels.max()), batch_size=self.batch_size)

    @cached_property
    def _target(self) -> nn.Module:
        return self._made(self._makers[0])

    @cached_property
    def _source(self) -> nn.Module:
        return self._made(self._makers[1] or self._makers[0])

    def _made(self, make: Model) -> nn.Module:
        model = make()
        num_classes = check_classifier(model, self._images.pixels[: self.batch_size].to(self._device))
        check_labels(self._images.labels, len(self._images.labels), num_classes)
        check_classes(self._attacks, num_classes)
        self._counted.append(CountedModel(model))
        return self._counted[-1]
