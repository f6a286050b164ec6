"""What a process does with a handful of examples: classify, differentiate or attack them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guard_plugin.attacks import Attack, Classifier, Criterion, check_classes
from guard_plugin.attacks.balls import distance
from guard_plugin.datasets import ImageSet
from guard_plugin.datasets.image_set import check_labels
from guard_plugin.evaluation.records import Cost, Record
from guard_plugin.networks.pixel_model import check_classifier, finite_logits

__all__ = ["CountedModel", "Worker"]


class CountedModel(nn.Module):
    """A model in eval mode that counts the examples it sees, forwards and backwards, whoever calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.forwards = 0
        self.backwards = 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the model's logits."""
        self.forwards += len(pixels)
        logits: Tensor = self.model(pixels)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]  # torch's own gap
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@dataclass(frozen=True)
class Worker:
    """Works on examples of an image set; the models are made, moved to the device and checked when first used."""

    model: Callable[[], nn.Module]  # returns the classifier in pixel space that is measured
    source: nn.Module | None  # the classifier on which transferred attacks are made
    images: ImageSet
    attacks: Mapping[str, Attack]  # the attacks that the models must be fit for
    batch_size: int
    device: torch.device
    _counted: list[CountedModel] = field(default_factory=list, init=False)

    def classify(self, examples: NDArray[np.int64]) -> Record:
        """Find whether the model's choice is the label."""
        begin = self._now()
        pixels, labels, _ = self._rows(examples)
        return self._record(begin, self._choices(pixels, labels) == labels)

    def differentiate(self, examples: NDArray[np.int64]) -> Record:
        """Find whether the loss has a gradient that is not zero in every pixel; "correct" is where it has one."""
        begin = self._now()
        pixels, labels, _ = self._rows(examples)
        classifier = self._classifier(self._target, labels)
        _, gradients = classifier.gradient(pixels, Criterion(labels).cross_entropy())
        classifier.check_gradients()
        return self._record(begin, gradients.flatten(1).ne(0).any(1))

    def attack(self, attack: Attack, examples: NDArray[np.int64]) -> Record:
        """Find whether the model's choice is the label after the attack."""
        begin = self._now()
        pixels, labels, indices = self._rows(examples)
        model = self._source if attack.transfer else self._target
        images = attack(model, pixels, labels, indices=indices, batch_size=self.batch_size)
        choices = self._choices(images, labels)
        targets = attack.goal(self._classifier(model, labels), pixels, labels, indices).targets
        reached = None if targets is None else choices == targets
        farthest = float(distance(attack.norm, images, pixels).max())
        return self._record(begin, choices == labels, reached, farthest)

    def _rows(self, examples: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.from_numpy(examples)
        return self.images.pixels[rows].to(self.device), self.images.labels[rows].to(self.device), rows

    def _record(self, begin: Cost, correct: Tensor, reached: Tensor | None = None, farthest: float = 0.0) -> Record:
        reached = torch.zeros_like(correct) if reached is None else reached
        return Record(correct.cpu().numpy(), self._now() - begin, reached=reached.cpu().numpy(), farthest=farthest)

    def _now(self) -> Cost:
        passes = {name: sum(getattr(model, name) for model in self._counted) for name in ("forwards", "backwards")}
        return Cost(time.perf_counter(), **passes)

    def _choices(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return finite_logits(self._classifier(self._target, labels).logits, pixels).argmax(1)

    def _classifier(self, model: nn.Module, labels: Tensor) -> Classifier:
        return Classifier(model, highest=int(labels.max()), batch_size=self.batch_size)

    @cached_property
    def _target(self) -> nn.Module:
        return self._checked(self.model())

    @cached_property
    def _source(self) -> nn.Module:
        return self._target if self.source is None else self._checked(self.source)

    def _checked(self, model: nn.Module) -> nn.Module:
        model.to(self.device)
        num_classes = check_classifier(model, self.images.pixels[: self.batch_size].to(self.device))
        check_labels(self.images.labels, len(self.images.labels), num_classes)
        check_classes(self.attacks, num_classes)
        self._counted.append(CountedModel(model))
        return self._counted[-1]
