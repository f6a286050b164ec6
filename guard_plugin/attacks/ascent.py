"""The one loop of all gradient attacks: FGSM, PGD and MIM are settings of it."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Goal
from guard_plugin.attacks.norms import NORMS, Norm, project, steepest
from guard_plugin.attacks.randomness import start_per_example
from guard_plugin.errors import UnusableInput

__all__ = ["GradientAscent"]

_LONGEST_CYCLE = 4

Success = Literal["any", "last"]


@dataclass(frozen=True)
class GradientAscent(Attack):
    """Steps along the gradient of the cross entropy, each projected on the ball, then on [0, 1].

    Examples on which nothing more can happen are left out of further passes. That is so once the goal is reached
    (with ``success`` "any"), and where an iterate equals an earlier one: signed steps of a fixed length repeat
    themselves, and the rest is known.

    Args:
        steps: Number of gradient steps, >= 1.
        relative_alpha: Length of a step over eps, > 0.
        random_start: Whether to start from a random point of the ball, instead of the image.
        decay: Weight of the accumulated gradient; None for none.
        success: "any": an example counts as fooled where any iterate fools, and that iterate is returned; "last": the
            last iterate is returned, whatever it does, as torchattacks and foolbox do. A transferred attack always has
            "last": where its source is fooled says little about the model that is measured.

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    norms: ClassVar[tuple[Norm, ...]] = NORMS
    can_target: ClassVar[bool] = True
    can_transfer: ClassVar[bool] = True

    steps: int = 1
    relative_alpha: float = 1.0
    random_start: bool = False
    decay: float | None = None
    success: Success = "any"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfer:
            object.__setattr__(self, "success", "last")
        if self.steps < 1 or not self.relative_alpha > 0:
            raise UnusableInput(
                f"expected {self.family} with steps >= 1 and relative_alpha > 0, "
                f"got steps={self.steps}, relative_alpha={self.relative_alpha}"
            )

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        goal = self.goal(classifier, pixels, labels, indices)
        climb = _Climb(self, classifier, pixels, goal, self._start(pixels, indices))
        for step in range(self.steps):
            climb.take(step)
        return climb.finish()

    def _start(self, pixels: Tensor, indices: Tensor) -> Tensor:
        if not self.random_start:
            return pixels
        start = start_per_example(self.norm, pixels, eps=self.eps.value, seed=self.seed, indices=indices)
        return (pixels + start).clamp(0, 1)


@dataclass
class _Active:
    """The examples that still move; every field has a row for each."""

    places: Tensor
    pixels: Tensor
    iterates: Tensor
    goal: Goal
    momentum: Tensor | None
    past: tuple[Tensor, ...] = ()

    def of(self, rows: Tensor) -> "_Active":
        return replace(
            self,
            places=self.places[rows],
            pixels=self.pixels[rows],
            iterates=self.iterates[rows],
            goal=self.goal.of(rows),
            momentum=None if self.momentum is None else self.momentum[rows],
            past=tuple(earlier[rows] for earlier in self.past),
        )


class _Climb:
    """An attack on its way."""

    def __init__(
        self, attack: GradientAscent, classifier: Classifier, pixels: Tensor, goal: Goal, start: Tensor
    ) -> None:
        self._attack = attack
        self._classifier = classifier
        self._result = start.clone()
        places = torch.arange(len(pixels), device=pixels.device)
        momentum = None if attack.decay is None else torch.zeros_like(pixels)
        self._active = _Active(places, pixels, start, goal, momentum)
        # With momentum the next iterate hangs on more than this one, and only signed steps return to the same point.
        self._repeats = attack.norm == "linf" and attack.decay is None

    def take(self, step: int) -> None:
        """Take one step with every example that still moves."""
        if not len(self._active.places):
            return
        logits, gradients = self._classifier.gradient(self._active.iterates, self._active.goal.cross_entropy())
        if self._attack.success == "any":
            reached = self._active.goal.reached(logits)
            self._leave(reached, self._active.iterates)
            gradients = gradients[~reached]
        self._move(gradients)
        if self._repeats:
            self._leave_repeating(self._attack.steps - 1 - step)

    def finish(self) -> Tensor:
        """The result for every example."""
        self._result[self._active.places] = self._active.iterates
        return self._result

    def _move(self, gradients: Tensor) -> None:
        active, attack = self._active, self._attack
        if self._repeats:
            active.past = (*active.past, active.iterates)[-_LONGEST_CYCLE:]
        if active.momentum is not None and attack.decay is not None:
            gradients = active.momentum = attack.decay * active.momentum + _unit_mean(gradients)
        step = attack.relative_alpha * attack.eps.value * steepest(attack.norm, gradients)
        active.iterates = project(attack.norm, active.pixels, active.iterates + step, attack.eps.value)

    def _leave_repeating(self, steps_left: int) -> None:
        """Let go of examples that are where they were before: the last iterate is one of the cycle."""
        for period in range(1, len(self._active.past) + 1):
            repeats = (self._active.iterates == self._active.past[-period]).flatten(1).all(1)
            if bool(repeats.any()):
                self._leave(repeats, self._active.past[-period + steps_left % period])

    def _leave(self, rows: Tensor, result: Tensor) -> None:
        if bool(rows.any()):
            self._result[self._active.places[rows]] = result[rows]
            self._active = self._active.of(~rows)


def _unit_mean(gradients: Tensor) -> Tensor:
    """Each example's gradient over the mean of its absolute values; zero stays zero."""
    means = gradients.abs().flatten(1).mean(1).view(-1, *[1] * (gradients.dim() - 1))
    return torch.where(means > 0, gradients / means.clamp_min(torch.finfo(means.dtype).tiny), 0.0)
