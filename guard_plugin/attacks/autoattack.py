"""AutoAttack, version "standard"."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from guard_plugin.attacks.apgd import APGDCE, APGDT
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.fab import FABT
from guard_plugin.attacks.rounds import AttackInRounds, Examples, Round
from guard_plugin.attacks.square import Square

__all__ = ["AutoAttack"]


@dataclass(frozen=True)
class AutoAttack(AttackInRounds):
    """Four attacks in turn, each on the examples that the earlier ones did not fool (Croce and Hein, 2020).

    They are the attacks of AutoAttack's version "standard", which RobustBench uses, with its parameters and in its
    order: apgd-ce, apgd-t, fab-t and square. Each can also be asked for alone, under that name.
    """

    family: ClassVar[str] = "autoattack"
    least_classes: ClassVar[int] = APGDT.least_classes

    @property
    def parts(self) -> tuple[Attack, ...]:
        """The four attacks."""
        shared: dict[str, Any] = {"eps": self.eps, "seed": self.seed, "norm": self.norm}
        return APGDCE(**shared), APGDT(**shared), FABT(**shared), Square(**shared)

    def _rounds(self, classifier: Classifier, num_classes: int) -> Iterable[Round]:
        return [partial(_run_part, part, classifier) for part in self.parts]


def _run_part(part: Attack, classifier: Classifier, examples: Examples) -> tuple[Tensor, Tensor]:
    images = part._perturb(classifier, examples.pixels, examples.labels, examples.indices)
    return images, classifier.logits(images).argmax(1) != examples.labels
