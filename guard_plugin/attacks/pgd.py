"""Projected gradient descent, and the loop that it shares with FGSM and MIM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from guard_plugin.attacks.balls import NORMS, Norm, project, steepest
from guard_plugin.attacks.base import Attack, parse_count
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Criterion, Unfinished, is_time_to_pack, where_rows
from guard_plugin.attacks.randomness import start_per_example

__all__ = ["PGD", "GradientAscent", "SteppedAscent"]

_LONGEST_CYCLE = 4


@dataclass(frozen=True)
class GradientAscent(Attack):
    """Steps along the gradient of the cross entropy, each projected on the ball and clamped to [0, 1].

    An example is left out of further passes once its result is known: when it meets the criterion (with ``success``
    "any"), or when an iterate equals an earlier one, since signed steps of a fixed length then repeat themselves.

    Args:
        steps: Number of gradient steps, >= 1.
        relative_alpha: Length of a step over eps, > 0.
        random_start: Whether to start from a random point of the ball, instead of the image.
        decay: Weight of the accumulated gradient; None for steps without momentum.
        success: "any": the first iterate that fools is returned, else the last one; "last": the last iterate is
            returned, also where an earlier one fooled, as torchattacks and foolbox do. A transferred attack always has
            "last", because an image that fools its source may not fool the model that is measured.

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    norms: ClassVar[tuple[Norm, ...]] = NORMS
    can_target: ClassVar[bool] = True
    can_transfer: ClassVar[bool] = True
    _at_least_1: ClassVar[Sequence[str]] = ("steps",)
    _above_0: ClassVar[Sequence[str]] = ("relative_alpha",)

    steps: int = 1
    relative_alpha: float = 1.0
    random_start: bool = False
    decay: float | None = None
    success: Literal["any", "last"] = "any"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfer:
            object.__setattr__(self, "success", "last")

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        criterion = self.goal(classifier, pixels, labels, indices)
        start = pixels
        if self.random_start:
            shift = start_per_example(self.norm, pixels, eps=self.eps.value, seed=self.seed, indices=indices)
            start = (pixels + shift).clamp(0, 1)
        momentum = None if self.decay is None else torch.zeros_like(pixels)
        places = torch.arange(len(pixels), device=pixels.device)
        moving = _Moving(places, torch.ones_like(places, dtype=torch.bool), pixels, start, criterion, momentum)
        result = start.clone()
        for step in range(self.steps):
            logits, gradients = classifier.gradient(moving.iterates, moving.criterion.cross_entropy())
            if self.success == "any":
                moving = replace(moving, live=moving.live & ~moving.criterion.reached(logits))
            moving = self._moved(moving, gradients)
            for period in range(1, len(moving.past) + 1):
                moving = moving.without_cycles(period, self.steps - 1 - step)
            if is_time_to_pack(step, self.steps):
                result[moving.places] = moving.iterates
                moving = moving.packed()
                if not len(moving.places):
                    break
        result[moving.places] = moving.iterates
        return result

    def _moved(self, moving: _Moving, gradients: Tensor) -> _Moving:
        past, momentum = moving.past, None
        # With momentum the next iterate depends on more than this one, and only signed steps return to the same point.
        if self.norm == "linf" and self.decay is None:
            past = (*past, moving.iterates)[-_LONGEST_CYCLE:]
        if moving.momentum is not None and self.decay is not None:
            gradients = momentum = self.decay * moving.momentum + _unit_mean(gradients)
        step = self.relative_alpha * self.eps.value * steepest(self.norm, gradients)
        iterates = project(self.norm, moving.pixels, moving.iterates + step, self.eps.value)
        return replace(
            moving, iterates=where_rows(moving.live, iterates, moving.iterates), momentum=momentum, past=past
        )


@dataclass(frozen=True)
class SteppedAscent(GradientAscent):
    """A gradient attack that has its number of steps in its name, such as "pgd100"."""

    @classmethod
    def from_spec(cls, suffix: str, **common: Any) -> SteppedAscent:
        """Read the number of steps from the name: "100" in "pgd100"."""
        return cls(steps=parse_count(cls.family, suffix), **common)

    @property
    def base_name(self) -> str:
        """The family with the number of steps."""
        return f"{self.family}{self.steps}"


@dataclass(frozen=True)
class PGD(SteppedAscent):
    """Gradient steps from a random point of the ball (Madry et al., 2018); "pgd100" has 100 of them.

    GUARD's evaluation has 100 steps of eps / 4.
    """

    family: ClassVar[str] = "pgd"

    steps: int = 100
    relative_alpha: float = 0.25
    random_start: bool = True


@dataclass(frozen=True)
class _Moving(Unfinished):
    """The examples that still move, and some that are where they end."""

    pixels: Tensor
    iterates: Tensor
    criterion: Criterion
    momentum: Tensor | None
    past: tuple[Tensor, ...] = ()

    def without_cycles(self, period: int, steps_left: int) -> _Moving:
        """Finish examples that are where they were ``period`` steps ago: their last iterate is one of the cycle."""
        repeats = (self.iterates == self.past[-period]).flatten(1).all(1) & self.live
        iterates = where_rows(repeats, self.past[-period + steps_left % period], self.iterates)
        return replace(self, iterates=iterates, live=self.live & ~repeats)


def _unit_mean(gradients: Tensor) -> Tensor:
    """Return each example's gradient over the mean of its absolute values; a gradient of zero stays zero."""
    means = gradients.abs().flatten(1).mean(1).view(-1, *[1] * (gradients.dim() - 1))
    return torch.where(means > 0, gradients / means.clamp_min(torch.finfo(means.dtype).tiny), 0.0)
