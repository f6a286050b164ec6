"""The fast gradient sign method."""

from dataclasses import dataclass
from typing import ClassVar

from guard_plugin.attacks.pgd import GradientAscent

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(GradientAscent):
    """One step of length eps from the image along the sign of the gradient (Goodfellow et al., 2015)."""

    family: ClassVar[str] = "fgsm"
