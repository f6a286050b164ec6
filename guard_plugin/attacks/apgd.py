"""Auto-PGD (Croce and Hein, 2020), step by step as pyautoattack has it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.balls import Norm
from guard_plugin.attacks.classifier import Classifier, Loss
from guard_plugin.attacks.criteria import Criterion, Unfinished, is_time_to_pack, where_rows
from guard_plugin.attacks.randomness import normal_per_example, uniform_per_example
from guard_plugin.attacks.rounds import AttackInRuns, Examples, TowardsTopClasses

__all__ = ["APGDCE", "APGDT"]

_RHO = 0.75
"""The share of a window's steps that must raise the loss."""

_MOMENTUM = 0.75
_TINY = 1e-12


@dataclass(frozen=True)
class _AutoPGD(AttackInRuns):
    """The runs that both forms of the attack share.

    An example is finished at the first iterate that fools. pyautoattack goes on, and returns the last one that does.
    """

    constants: ClassVar[Mapping[str, Any]] = {"restarts": 1, "rho": _RHO, "eot_iter": 1}

    def _run(self, classifier: Classifier, rank: int, examples: Examples) -> tuple[Tensor, Tensor]:
        eps, pixels = self.eps.value, examples.pixels
        # AutoAttack makes a start from uniform numbers in [-1, 1), or from normal ones.
        draw = uniform_per_example if self.norm == "linf" else normal_per_example
        draws = draw(pixels, seed=self.seed, indices=examples.indices, stream=rank)
        targets = examples.logits.sort(dim=1).indices[:, -rank] if rank else None
        start = (pixels + eps * _unit(self.norm, draws)).clamp(0, 1)
        climbing = self._judged(_Climbing.begun(examples, targets, start, 2 * eps), classifier)
        # In theirs, the losses of the first window are counted from 0.
        climbing = replace(climbing, losses=torch.zeros_like(climbing.losses), rises=torch.zeros_like(climbing.rises))
        result, fooled = start.clone(), torch.zeros_like(climbing.live)
        window, seen = max(int(0.22 * self.steps), 1), 0
        for step in range(self.steps):
            climbing = climbing.moved(self.norm, eps, _MOMENTUM if step else 1.0)
            climbing, seen = self._judged(climbing, classifier), seen + 1
            if seen == window:
                climbing, seen = climbing.checked(window), 0
                window = max(window - max(int(0.03 * self.steps), 1), max(int(0.06 * self.steps), 1))
            if is_time_to_pack(step, self.steps):
                result[climbing.places], fooled[climbing.places] = climbing.iterates, ~climbing.live
                climbing = climbing.packed()
                if not len(climbing.places):
                    break
        result[climbing.places], fooled[climbing.places] = climbing.iterates, ~climbing.live
        return result, fooled

    def _judged(self, climbing: _Climbing, classifier: Classifier) -> _Climbing:
        loss = self._loss(climbing.labels, climbing.targets)
        logits, gradients = classifier.gradient(climbing.iterates, loss)
        return climbing.judged(logits, loss(logits, torch.arange(len(logits), device=logits.device)), gradients)

    @abstractmethod
    def _loss(self, labels: Tensor, targets: Tensor | None) -> Loss:
        """Return the loss to increase."""


@dataclass(frozen=True)
class APGDCE(_AutoPGD):
    """Gradient steps on the cross entropy from one random start; a step is halved where it makes no progress."""

    family: ClassVar[str] = "apgd-ce"
    constants: ClassVar[Mapping[str, Any]] = {**_AutoPGD.constants, "loss": "cross entropy"}

    def _loss(self, labels: Tensor, targets: Tensor | None) -> Loss:
        return Criterion(labels).cross_entropy()


@dataclass(frozen=True)
class APGDT(_AutoPGD, TowardsTopClasses):
    """Auto-PGD on the targeted difference of logits ratio, from one random start for each target.

    The ratio divides by differences of the four largest logits, and so the attack needs four classes.
    """

    family: ClassVar[str] = "apgd-t"
    least_classes: ClassVar[int] = 4
    constants: ClassVar[Mapping[str, Any]] = {**_AutoPGD.constants, "loss": "targeted difference of logits ratio"}

    def _loss(self, labels: Tensor, targets: Tensor | None) -> Loss:
        aims = labels if targets is None else targets

        def ratio(logits: Tensor, rows: Tensor) -> Tensor:
            own, aim = (logits.gather(1, classes[rows, None])[:, 0] for classes in (labels, aims))
            ordered = logits.sort(dim=1).values
            return -(own - aim) / (ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + _TINY)

        return ratio


@dataclass(frozen=True)
class _Climbing(Unfinished):
    """The examples that no iterate fooled, and some that are at the iterate that did."""

    pixels: Tensor
    labels: Tensor
    targets: Tensor | None
    iterates: Tensor
    before: Tensor
    """The iterates one step ago."""
    gradients: Tensor
    losses: Tensor
    best: Tensor
    best_gradients: Tensor
    best_losses: Tensor
    steps: Tensor
    """The length of each example's step, shape (n, 1, 1, 1)."""
    rises: Tensor
    """How many steps of this window raised the loss."""
    checked_losses: Tensor
    """The best loss when the last window ended."""
    halved: Tensor
    """Whether the step was halved then."""

    @classmethod
    def begun(cls, examples: Examples, targets: Tensor | None, start: Tensor, step: float) -> _Climbing:
        """Return all examples at their starts."""
        places = torch.arange(len(start), device=start.device)
        yes, never = torch.ones_like(places, dtype=torch.bool), start.new_full((len(start),), -torch.inf)
        steps, zeros = torch.full_like(start[:, :1, :1, :1], step), torch.zeros_like(start)
        given = examples.pixels, examples.labels, targets
        climbs = start, start, zeros, never, start, zeros, never
        return cls(places, yes, *given, *climbs, steps, torch.zeros_like(never), never, yes)

    def moved(self, norm: Norm, eps: float, momentum: float) -> _Climbing:
        """Return the examples after a step along the gradient, with a part of the step before."""
        at, last = self.iterates, self.iterates - self.before
        direction = self.gradients.sign() if norm == "linf" else _unit(norm, self.gradients)
        there = _projected(norm, self.pixels, at + self.steps * direction, eps)
        there = _projected(norm, self.pixels, at + (there - at) * momentum + last * (1 - momentum), eps)
        return replace(self, before=at, iterates=where_rows(self.live, there, at))

    def judged(self, logits: Tensor, losses: Tensor, gradients: Tensor) -> _Climbing:
        """Return the examples with what was found where they are; those that are fooled are finished."""
        better = losses > self.best_losses
        return replace(
            self,
            live=self.live & ~Criterion(self.labels).reached(logits),
            gradients=gradients,
            losses=losses,
            best=where_rows(better, self.iterates, self.best),
            best_gradients=where_rows(better, gradients, self.best_gradients),
            best_losses=torch.where(better, losses, self.best_losses),
            rises=self.rises + (losses > self.losses),
        )

    def checked(self, window: int) -> _Climbing:
        """Return the examples after a window: without progress, they go back to their best place with half the step."""
        idle = ~self.halved & (self.checked_losses >= self.best_losses)
        halved = (self.rises <= window * _RHO) | idle
        back = halved & self.live
        return replace(
            self,
            iterates=where_rows(back, self.best, self.iterates),
            gradients=where_rows(back, self.best_gradients, self.gradients),
            steps=where_rows(halved, self.steps / 2, self.steps),
            rises=torch.zeros_like(self.rises),
            checked_losses=self.best_losses,
            halved=halved,
        )


def _size(norm: Norm, delta: Tensor) -> Tensor:
    """Return each example's norm, shape (n, 1, 1, 1); in float32, as in theirs."""
    flat = delta.flatten(1)
    sizes: Tensor = flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()
    return sizes.view(-1, 1, 1, 1)


def _unit(norm: Norm, delta: Tensor) -> Tensor:
    return delta / (_size(norm, delta) + _TINY)


def _projected(norm: Norm, pixels: Tensor, images: Tensor, eps: float) -> Tensor:
    if norm == "linf":
        return torch.min(torch.max(images, pixels - eps), pixels + eps).clamp(0, 1)
    delta = images - pixels
    return (pixels + _unit(norm, delta) * _size(norm, delta).clamp(max=eps)).clamp(0, 1)
