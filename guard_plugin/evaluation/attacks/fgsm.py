"""The fast gradient sign method."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guard_plugin.evaluation.attacks.base import Attack, Classifier
from guard_plugin.evaluation.attacks.gradients import cross_entropy_gradient

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of length eps along the sign of the gradient (Goodfellow et al., 2015)."""

    family: ClassVar[str] = "fgsm"

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        gradient = cross_entropy_gradient(classifier, pixels, labels)
        return (pixels + self.eps.value * gradient.sign()).clamp(0, 1)
