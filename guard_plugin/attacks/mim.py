"""The momentum iterative method."""

from dataclasses import dataclass
from typing import Any, ClassVar

from guard_plugin.attacks.ascent import GradientAscent
from guard_plugin.attacks.pgd import steps_from

__all__ = ["MIM"]


@dataclass(frozen=True)
class MIM(GradientAscent):
    """Steps from the image along the accumulated gradients, each over its mean (Dong et al., 2018); "mim20" has 20.

    GUARD's evaluation has 20 steps of eps and decay 1, with one mean for the whole batch; here each example has its
    own, as in the paper.
    """

    family: ClassVar[str] = "mim"

    steps: int = 20
    relative_alpha: float = 1.0
    decay: float | None = 1.0

    @classmethod
    def from_spec(cls, suffix: str, **common: Any) -> "MIM":
        """Read the number of steps from the name: "20" in "mim20"."""
        return cls(steps=steps_from(cls.family, suffix), **common)

    @property
    def base_name(self) -> str:
        """The family with the number of steps."""
        return f"{self.family}{self.steps}"
