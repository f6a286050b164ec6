"""Projected gradient descent."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.attacks.base import Attack, Classifier
from guard_plugin.evaluation.attacks.eps import Eps
from guard_plugin.evaluation.attacks.gradients import cross_entropy_gradient
from guard_plugin.evaluation.attacks.randomness import uniform_per_example

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD(Attack):
    """Signed gradient steps, each projected on the ball, then on [0, 1]; the last iterate (Madry et al., 2018).

    Args:
        eps: Radius of the ball, in pixel units.
        seed: Source of the random start.
        steps: Number of gradient steps, >= 1.
        relative_alpha: Length of a step over eps, > 0; GUARD's evaluation has 1/4.
        random_start: Whether to start from a uniform point of the ball, instead of the image.

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    family: ClassVar[str] = "pgd"

    steps: int = 100
    relative_alpha: float = 0.25
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or not self.relative_alpha > 0:
            raise UnusableInput(
                f"expected PGD with steps >= 1 and relative_alpha > 0, "
                f"got steps={self.steps}, relative_alpha={self.relative_alpha}"
            )

    @classmethod
    def from_spec(cls, suffix: str, *, eps: Eps, seed: int) -> "PGD":
        """Read the number of steps from the name: "100" in "pgd100"."""
        if not (suffix.isascii() and suffix.isdecimal()):
            raise UnusableInput(f"expected pgd with its number of steps, such as pgd100; got {'pgd' + suffix!r}")
        return cls(eps=eps, seed=seed, steps=int(suffix))

    @property
    def name(self) -> str:
        """The family with the number of steps."""
        return f"pgd{self.steps}"

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        eps = self.eps.value
        alpha = self.relative_alpha * eps
        adversarial = pixels
        if self.random_start:
            start = uniform_per_example(pixels, seed=self.seed, indices=indices)
            adversarial = (pixels + eps * start).clamp(0, 1)
        for _ in range(self.steps):
            stepped = adversarial + alpha * cross_entropy_gradient(classifier, adversarial, labels).sign()
            adversarial = (pixels + (stepped - pixels).clamp(-eps, eps)).clamp(0, 1)
        return adversarial
