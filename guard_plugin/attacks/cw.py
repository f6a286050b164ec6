"""The attack of Carlini and Wagner."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from guard_plugin.attacks.balls import Norm, ball_radius, distance
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier, Loss
from guard_plugin.attacks.criteria import Criterion, Unfinished, is_time_to_pack, where_rows

__all__ = ["CW"]

_SHRINK = 0.999
"""Keeps pixels of 0 and 1 at finite places of tanh space, from where they come back in a few steps."""

_CHECKS = 10
"""How often, during the steps for one c, an example must have made progress."""

_PROGRESS = 0.9999
_BETAS = 0.9, 0.999
_TINY = 1e-8


@dataclass(frozen=True)
class CW(Attack):
    """The smallest Euclidean change that fools, by Adam in tanh space (Carlini and Wagner, 2017, L2 attack, kappa 0).

    For each example, the attack minimises ||x' - x||^2 + c * max(margin(x'), 0) for several c. Where a c did not fool,
    the next one is ten times as large, or halfway to the smallest c that fooled; where it fooled, the next one is
    halfway to the largest c that did not. An example leaves the steps for its c once its cost no longer falls. It
    counts as fooled if the smallest change found lies in the ball; otherwise its pixels are returned as they were.

    Args:
        steps: Steps of Adam for one c, >= 1.
        searches: Values of c to try, >= 1.
        relative_rate: Adam's learning rate over the ball's radius, as a root mean square, > 0. Adam's first steps move
            every pixel by about half its rate, so that a fixed rate either steps over near solutions or does not get
            as far as eps. Changes far smaller than eps are therefore not found at their smallest.
        initial_c: The first c, > 0.
        success: "any": an example is finished at the first image in the ball that fools; "smallest": the search for a
            smaller change goes on, which fools no further example.

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    family: ClassVar[str] = "cw"
    norms: ClassVar[tuple[Norm, ...]] = ("rms", "l2")
    can_target: ClassVar[bool] = True
    _at_least_1: ClassVar[Sequence[str]] = ("steps", "searches")
    _above_0: ClassVar[Sequence[str]] = ("relative_rate", "initial_c")

    norm: Norm = "rms"
    steps: int = 100
    searches: int = 9
    relative_rate: float = 1.0
    initial_c: float = 1e-3
    success: Literal["any", "smallest"] = "any"

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        criterion = self.goal(classifier, pixels, labels, indices)
        nearest, distances = pixels.clone(), pixels.new_full((len(pixels),), torch.inf, dtype=torch.float64)
        c = pixels.new_full((len(pixels),), self.initial_c)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        places, zeros = torch.arange(len(pixels), device=pixels.device), torch.zeros_like(pixels)
        hidden = ((2 * pixels - 1) * _SHRINK).atanh()
        live = torch.ones_like(places, dtype=torch.bool)
        start = _Active(places, live, pixels, criterion, c, hidden, zeros, zeros, torch.full_like(c, torch.inf))
        for _ in range(self.searches):
            fooled = self._minimise(classifier, replace(start, c=c), nearest, distances)
            low, high = torch.where(fooled, low, c), torch.where(fooled, c, high)
            c = torch.where(high.isinf(), c * 10, (low + high) / 2)
        inside = distances <= self.eps.value
        return where_rows(inside, nearest, pixels)

    def _minimise(self, classifier: Classifier, active: "_Active", nearest: Tensor, distances: Tensor) -> Tensor:
        """Minimise the cost of every unfinished example for its c; return whether any image fooled, shape (n,), bool.

        The nearest image that fooled each example so far, and its distance (else infinite), are updated in place.
        """
        radius = ball_radius(self.norm, self.eps.value, nearest) / math.sqrt(nearest[0].numel())
        interval = -(-self.steps // _CHECKS)
        fooled = torch.zeros_like(distances, dtype=torch.bool)
        active = active.of(self._goes_on(distances).nonzero()[:, 0])
        for step in range(self.steps):
            if not len(active.places):
                break
            tanh = active.hidden.tanh()
            images = (tanh / (2 * _SHRINK) + 0.5).clamp(0, 1)
            logits, slopes = classifier.gradient(images, _hinge(active.criterion))
            places, reached = active.places, active.criterion.reached(logits) & active.live
            fooled[places] |= reached
            found, known = distance(self.norm, images, active.pixels), distances[places]
            nearer = reached & (found < known)
            distances[places] = torch.where(nearer, found, known)
            nearest[places] = where_rows(nearer, images, nearest[places])
            change = images - active.pixels
            cost = active.c * active.criterion.margin(logits).clamp_min(0) + change.square().flatten(1).sum(1)
            gradients = (active.c.view(-1, 1, 1, 1) * slopes + 2 * change) * ((1 - tanh**2) / (2 * _SHRINK))
            active = active.moved(gradients, step + 1, self.relative_rate * radius)
            live = active.live & self._goes_on(distances[places])
            if step % interval == 0:
                live &= cost <= _PROGRESS * active.cost
                active = replace(active, cost=cost)
            active = replace(active, live=live)
            if is_time_to_pack(step, self.steps):
                active = active.packed()
        return fooled

    def _goes_on(self, distances: Tensor) -> Tensor:
        return (distances > self.eps.value) | (self.success != "any")


@dataclass(frozen=True)
class _Active(Unfinished):
    """The examples whose cost still falls for their c, and some that are left."""

    pixels: Tensor
    criterion: Criterion
    c: Tensor
    hidden: Tensor
    """The image in tanh space."""
    mean: Tensor
    square: Tensor
    """Adam's moving averages of the gradient and its square."""
    cost: Tensor
    """The cost at the last check."""

    def moved(self, gradients: Tensor, step: int, learning_rate: float) -> "_Active":
        """Return the examples after one step of Adam, the ``step``-th, from 1."""
        mean = _BETAS[0] * self.mean + (1 - _BETAS[0]) * gradients
        square = _BETAS[1] * self.square + (1 - _BETAS[1]) * gradients**2
        root = (square / (1 - _BETAS[1] ** step)).sqrt() + _TINY
        hidden = self.hidden - learning_rate * (mean / (1 - _BETAS[0] ** step)) / root
        return replace(self, hidden=hidden, mean=mean, square=square)


def _hinge(criterion: Criterion) -> Loss:
    return lambda logits, rows: criterion.of(rows).margin(logits).clamp_min(0)
