"""Projected gradient descent."""

from dataclasses import dataclass
from typing import ClassVar

from guard_plugin.attacks.ascent import SteppedAscent

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD(SteppedAscent):
    """Gradient steps from a random point of the ball (Madry et al., 2018); "pgd100" has 100 of them.

    GUARD's evaluation has 100 steps of eps / 4.
    """

    family: ClassVar[str] = "pgd"

    steps: int = 100
    relative_alpha: float = 0.25
    random_start: bool = True
