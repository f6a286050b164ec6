"""AutoAttack, version "standard"."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from guard_plugin.attacks.apgd import APGDCE, APGDT, check_targetable
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.fab import FABT
from guard_plugin.attacks.norms import Norm
from guard_plugin.attacks.remaining import Round, attack_standing
from guard_plugin.attacks.square import Square

__all__ = ["AutoAttack"]


@dataclass(frozen=True)
class AutoAttack(Attack):
    """Four attacks one after the other, each on what the earlier ones left standing (Croce and Hein, 2020).

    They are those of the version "standard" of AutoAttack, which RobustBench asks for, with its parameters and in its
    order: apgd-ce, apgd-t, fab-t and square. Each is an attack of its own here, under that name.
    """

    family: ClassVar[str] = "autoattack"
    least_classes: ClassVar[int] = APGDT.least_classes
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    @property
    def parts(self) -> tuple[Attack, ...]:
        """The four attacks."""
        shared: dict[str, Any] = {
            "eps": self.eps,
            "seed": self.seed,
            "norm": self.norm,
        }
        return APGDCE(**shared), APGDT(**shared), FABT(**shared), Square(**shared)

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        logits = classifier.logits(pixels)
        check_targetable(self.family, logits)
        rounds = self._rounds(classifier, pixels, labels, indices.to(pixels.device))
        return attack_standing(pixels, logits.argmax(1) == labels, rounds, size=len(pixels))

    def _rounds(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Iterator[Round]:
        def run(part: Attack, rows: Tensor) -> tuple[Tensor, Tensor]:
            images = part._perturb(classifier, pixels[rows], labels[rows], indices[rows])
            return images, classifier.logits(images).argmax(1) != labels[rows]

        for part in self.parts:
            yield partial(run, part)
