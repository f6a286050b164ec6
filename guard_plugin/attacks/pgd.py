"""Projected gradient descent."""

from dataclasses import dataclass
from typing import Any, ClassVar

from guard_plugin.attacks.ascent import GradientAscent
from guard_plugin.errors import UnusableInput

__all__ = ["PGD", "steps_from"]


@dataclass(frozen=True)
class PGD(GradientAscent):
    """Gradient steps from a random point of the ball (Madry et al., 2018); "pgd100" has 100 of them.

    GUARD's evaluation has 100 steps of eps / 4.
    """

    family: ClassVar[str] = "pgd"

    steps: int = 100
    relative_alpha: float = 0.25
    random_start: bool = True

    @classmethod
    def from_spec(cls, suffix: str, **common: Any) -> "PGD":
        """Read the number of steps from the name: "100" in "pgd100"."""
        return cls(steps=steps_from(cls.family, suffix), **common)

    @property
    def base_name(self) -> str:
        """The family with the number of steps."""
        return f"{self.family}{self.steps}"


def steps_from(family: str, suffix: str) -> int:
    """Read a number of steps.

    Raises:
        UnusableInput: If the suffix is none.
    """
    if not (suffix.isascii() and suffix.isdecimal()):
        raise UnusableInput(f"expected {family} with its number of steps, such as {family}20; got {family + suffix!r}")
    return int(suffix)
