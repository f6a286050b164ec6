"""The fast adaptive boundary attack (Croce and Hein, 2020), run by pyautoattack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.balls import Norm
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Criterion
from guard_plugin.attacks.rounds import Examples, TowardsTopClasses
from guard_plugin.optional import require

__all__ = ["FABT"]

_LIBRARY_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class FABT(TowardsTopClasses):
    """Steps from the image onto the linearised boundary to each target, in search of the nearest image beyond it.

    The attack draws no random numbers. An image that it finds outside the ball does not count.
    """

    family: ClassVar[str] = "fab-t"
    constants: ClassVar[Mapping[str, Any]] = {"restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}

    def check_available(self) -> None:
        """Refuse the attack if pyautoattack is not installed."""
        self._library()

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        self.check_available()
        # This refuses a model that no gradient passes through; pyautoattack would fail with an error of torch's.
        classifier.gradient(pixels[:1], Criterion(labels[:1]).cross_entropy())
        return super()._perturb(classifier, pixels, labels, indices)

    def _library(self) -> Any:
        return require("pyautoattack.fab_pt", needed_by=f"attack {self.family}").FABAttack_PT

    def _run(self, classifier: Classifier, rank: int, examples: Examples) -> tuple[Tensor, Tensor]:
        options = {"n_iter": self.steps, "norm": _LIBRARY_NORMS[self.norm], "eps": self.eps.value}
        library = self._library()(classifier, targeted=True, **options)
        library.target_class = rank
        with torch.no_grad():
            images: Tensor = library.attack_single_run(examples.pixels, examples.labels, is_targeted=True)
        # In float32, as AutoAttack computes distances, so that the same images count as inside the ball.
        delta = (images - examples.pixels).flatten(1)
        distances = delta.abs().amax(1) if self.norm == "linf" else (delta**2).sum(1).sqrt()
        inside = distances <= self.eps.value
        return images, inside & (classifier.logits(images).argmax(1) != examples.labels)
