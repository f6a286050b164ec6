"""The momentum iterative method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guard_plugin.attacks.pgd import SteppedAscent

__all__ = ["MIM"]


@dataclass(frozen=True)
class MIM(SteppedAscent):
    """Steps from the image along the accumulated gradients, each over its mean (Dong et al., 2018); "mim20" has 20.

    GUARD's evaluation has 20 steps of eps and decay 1, with one mean for the whole batch; here each example has its
    own mean, as in the paper.
    """

    family: ClassVar[str] = "mim"

    steps: int = 20
    relative_alpha: float = 1.0
    decay: float | None = 1.0
