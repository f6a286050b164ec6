"""The fast adaptive boundary attack (Croce and Hein, 2020), run by pyautoattack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.rounds import Examples, TowardsTopClasses

__all__ = ["FABT"]


@dataclass(frozen=True)
class FABT(TowardsTopClasses):
    """Steps from the image onto the linearised boundary to each target, in search of the nearest image beyond it.

    The attack draws no random numbers. An image that it finds outside the ball does not count.
    """

    family: ClassVar[str] = "fab-t"
    constants: ClassVar[Mapping[str, Any]] = {"restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
    library_class: ClassVar[tuple[str, str]] = ("fab_pt", "FABAttack_PT")
    library_options: ClassVar[Mapping[str, Any]] = {"targeted": True}

    def _run(self, library: Any, classifier: Classifier, rank: int, examples: Examples) -> tuple[Tensor, Tensor]:
        library.target_class = rank
        with torch.no_grad():
            images: Tensor = library.attack_single_run(examples.pixels, examples.labels, is_targeted=True)
        # In float32, as AutoAttack computes distances, so that the same images count as inside the ball.
        delta = (images - examples.pixels).flatten(1)
        distances = delta.abs().amax(1) if self.norm == "linf" else (delta**2).sum(1).sqrt()
        inside = distances <= self.eps.value
        return images, inside & (classifier.logits(images).argmax(1) != examples.labels)
