"""The attack of Carlini and Wagner."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier, Loss
from guard_plugin.attacks.criteria import Goal
from guard_plugin.attacks.norms import Norm, ball_radius, distance
from guard_plugin.errors import UnusableInput

__all__ = ["CW"]

_SHRINK = 0.999
"""Keeps pixels at 0 and 1 at a finite place of tanh space, from where they come back in a few steps."""

_CHECKS = 10
"""How often, during the steps for one c, an example must have made progress."""

_PROGRESS = 0.9999
_BETAS = 0.9, 0.999
_TINY = 1e-8


@dataclass(frozen=True)
class CW(Attack):
    """The smallest Euclidean change that fools, by Adam in tanh space (Carlini and Wagner, 2017, L2 attack, kappa 0).

    For each example, minimises ||x' - x||^2 + c * max(margin(x'), 0) for several c: ten times the last where it did
    not fool, else halfway to the largest that did not. An example leaves the steps for its c where its cost no longer
    falls. It counts as fooled if the smallest change found lies in the ball; otherwise the image is returned as it was.

    Args:
        steps: Steps of Adam for one c, >= 1.
        searches: Values of c to try, >= 1.
        relative_rate: Adam's learning rate over the ball's radius, as a root mean square, > 0. Adam's first steps move
            every pixel by about half its rate: a fixed one goes past what is near, or does not get as far as eps.
            Lengths far below eps are therefore not found at their shortest.
        initial_c: The first c, > 0.
        success: "any": an example is finished at the first fooling image in the ball; "smallest": the search for a
            smaller change goes on, which fools no further example.

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    family: ClassVar[str] = "cw"
    norms: ClassVar[tuple[Norm, ...]] = ("rms", "l2")
    can_target: ClassVar[bool] = True

    norm: Norm = "rms"
    steps: int = 100
    searches: int = 9
    relative_rate: float = 1.0
    initial_c: float = 1e-3
    success: Literal["any", "smallest"] = "any"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.searches < 1 or not self.relative_rate > 0 or not self.initial_c > 0:
            raise UnusableInput(
                f"expected cw with steps >= 1, searches >= 1, relative_rate > 0 and initial_c > 0, got "
                f"steps={self.steps}, searches={self.searches}, relative_rate={self.relative_rate}, "
                f"initial_c={self.initial_c}"
            )

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        search = _Search(self, classifier, pixels, self.goal(classifier, pixels, labels, indices))
        for _ in range(self.searches):
            search.minimise()
            search.choose_c()
        return search.finish()


@dataclass(frozen=True)
class _Active:
    """The examples whose cost still falls for their c; every field has a row for each."""

    places: Tensor
    pixels: Tensor
    goal: Goal
    c: Tensor
    hidden: Tensor
    """The image in tanh space."""
    mean: Tensor
    square: Tensor
    """Adam's moving averages of the gradient and its square."""
    cost: Tensor
    """At the last check."""

    def of(self, rows: Tensor) -> "_Active":
        tensors = ("places", "pixels", "c", "hidden", "mean", "square", "cost")
        return replace(self, goal=self.goal.of(rows), **{name: getattr(self, name)[rows] for name in tensors})

    def moved(self, gradients: Tensor, step: int, learning_rate: float) -> "_Active":
        """One step of Adam, the ``step``-th, from 1."""
        mean = _BETAS[0] * self.mean + (1 - _BETAS[0]) * gradients
        square = _BETAS[1] * self.square + (1 - _BETAS[1]) * gradients**2
        root = (square / (1 - _BETAS[1] ** step)).sqrt() + _TINY
        hidden = self.hidden - learning_rate * (mean / (1 - _BETAS[0] ** step)) / root
        return replace(self, hidden=hidden, mean=mean, square=square)


class _Search:
    """An attack on its way."""

    def __init__(self, attack: CW, classifier: Classifier, pixels: Tensor, goal: Goal) -> None:
        self._attack = attack
        self._classifier = classifier
        self._pixels = pixels
        self._goal = goal
        self._best = pixels.clone()
        self._distance = pixels.new_full((len(pixels),), torch.inf, dtype=torch.float64)
        self._c = pixels.new_full((len(pixels),), attack.initial_c)
        self._low = torch.zeros_like(self._c)
        self._high = torch.full_like(self._c, torch.inf)
        radius = ball_radius(attack.norm, attack.eps.value, pixels) / math.sqrt(pixels[0].numel())
        self._rate = attack.relative_rate * radius
        self._fooled = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)

    def minimise(self) -> None:
        """Minimise the cost of every example that is not finished, for its c."""
        self._fooled[:] = False
        active = self._start()
        interval = -(-self._attack.steps // _CHECKS)
        for step in range(self._attack.steps):
            if not len(active.places):
                return
            images = _to_pixels(active.hidden)
            logits, slopes = self._classifier.gradient(images, _hinge(active.goal))
            self._note(active, images, logits)
            change = images - active.pixels
            cost = active.c * active.goal.margin(logits).clamp_min(0) + change.square().flatten(1).sum(1)
            gradients = (active.c.view(-1, 1, 1, 1) * slopes + 2 * change) * _slope(active.hidden)
            active = active.moved(gradients, step + 1, self._rate)
            goes_on = ~self._finished(active.places)
            if step % interval == 0:
                goes_on &= cost <= _PROGRESS * active.cost
                active = replace(active, cost=cost)
            if not bool(goes_on.all()):
                active = active.of(goes_on)

    def choose_c(self) -> None:
        """Set each example's next c."""
        self._high = torch.where(self._fooled, self._c, self._high)
        self._low = torch.where(self._fooled, self._low, self._c)
        self._c = torch.where(self._high.isinf(), self._c * 10, (self._low + self._high) / 2)

    def finish(self) -> Tensor:
        """The result for every example."""
        inside = self._distance <= self._attack.eps.value
        return torch.where(inside.view(-1, 1, 1, 1), self._best, self._pixels)

    def _start(self) -> _Active:
        places = torch.nonzero(~self._finished(torch.arange(len(self._pixels), device=self._pixels.device)))[:, 0]
        pixels, c = self._pixels[places], self._c[places]
        hidden, zeros = _to_hidden(pixels), torch.zeros_like(pixels)
        return _Active(places, pixels, self._goal.of(places), c, hidden, zeros, zeros, torch.full_like(c, torch.inf))

    def _finished(self, places: Tensor) -> Tensor:
        if self._attack.success != "any":
            return torch.zeros_like(places, dtype=torch.bool)
        return self._distance[places] <= self._attack.eps.value

    def _note(self, active: _Active, images: Tensor, logits: Tensor) -> None:
        """Keep the images that fool, where they are nearer than what fooled before."""
        reached = active.goal.reached(logits)
        self._fooled[active.places[reached]] = True
        far = distance(self._attack.norm, images, active.pixels)
        nearer = reached & (far < self._distance[active.places])
        places = active.places[nearer]
        self._best[places], self._distance[places] = images[nearer], far[nearer]


def _hinge(goal: Goal) -> Loss:
    return lambda logits, rows: goal.of(rows).margin(logits).clamp_min(0)


def _to_hidden(pixels: Tensor) -> Tensor:
    return ((2 * pixels - 1) * _SHRINK).atanh()


def _to_pixels(hidden: Tensor) -> Tensor:
    return (hidden.tanh() / (2 * _SHRINK) + 0.5).clamp(0, 1)


def _slope(hidden: Tensor) -> Tensor:
    return (1 - hidden.tanh() ** 2) / (2 * _SHRINK)
