"""The fast adaptive boundary attack (Croce and Hein, 2020), step by step as pyautoattack has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import where_rows
from guard_plugin.attacks.projections import project_l2, project_linf
from guard_plugin.attacks.rounds import Examples, TowardsTopClasses

__all__ = ["FABT"]

_ALPHA_MAX = 0.1
_ETA = 1.05
_BETA = 0.9
_NEAR = 1e-8
_NOWHERE = 1e10
"""The distance of an image that was not found."""


@dataclass(frozen=True)
class FABT(TowardsTopClasses):
    """Steps from the image onto the linearised boundary to each target, in search of the nearest image beyond it.

    A step goes ``eta`` times as far as the boundary, and up to ``alpha_max`` of the way to the boundary's point that is
    nearest to the image. From an image that fools, the search goes on at ``beta`` of the way to it. The attack draws no
    random numbers. An image that it finds outside the ball does not count.
    """

    family: ClassVar[str] = "fab-t"
    in_batches: ClassVar[bool] = True
    constants: ClassVar[Mapping[str, Any]] = {"restarts": 1, "alpha_max": _ALPHA_MAX, "eta": _ETA, "beta": _BETA}

    def _run(self, classifier: Classifier, rank: int, examples: Examples) -> tuple[Tensor, Tensor]:
        pixels, labels = examples.pixels, examples.labels
        targets = examples.logits.sort(dim=1).indices[:, -rank]

        def difference(logits: Tensor, rows: Tensor) -> Tensor:
            own, aim = (logits.gather(1, classes[rows, None])[:, 0] for classes in (labels, targets))
            return -(own - aim)

        places = torch.arange(len(pixels), device=pixels.device)
        at, nearest, distances = pixels, pixels, pixels.new_full((len(pixels),), _NOWHERE)
        for _ in range(self.steps):
            logits, gradients = classifier.gradient(at, difference)
            at = self._stepped(pixels, at, difference(logits, places), gradients)
            fooled = classifier.logits(at).argmax(1) != labels
            found = self._sizes(at - pixels)
            nearer = fooled & (found < distances)
            nearest = where_rows(nearer, at, nearest)
            distances = torch.where(nearer, found, distances)
            at = where_rows(fooled, pixels + (at - pixels) * _BETA, at)
        # In float32, as AutoAttack computes distances, so that the same images count as inside the ball.
        inside = self._sizes(nearest - pixels) <= self.eps.value
        return nearest, inside & (classifier.logits(nearest).argmax(1) != labels)

    def _stepped(self, pixels: Tensor, at: Tensor, differences: Tensor, gradients: Tensor) -> Tensor:
        """Return the images after a step onto the boundary, where the linearised difference of the logits is 0."""
        offsets = -differences + (gradients * at).flatten(1).sum(1)
        here, image, normals = at.flatten(1), pixels.flatten(1), gradients.flatten(1)
        project = project_linf if self.norm == "linf" else project_l2
        steps = project(torch.cat((here, image)), normals.repeat(2, 1), offsets.repeat(2))
        sizes = self._sizes(steps).clamp_min(_NEAR)
        (onto, onto_from_image), (size, size_from_image) = steps.view(2, *at.shape), sizes.view(2, len(at), 1, 1, 1)
        alpha = (size / (size + size_from_image)).clamp(0, _ALPHA_MAX)
        there: Tensor = (at + _ETA * onto) * (1 - alpha) + (pixels + onto_from_image * _ETA) * alpha
        return there.clamp_(0, 1)

    def _sizes(self, delta: Tensor) -> Tensor:
        flat = delta.flatten(1)
        sizes: Tensor = flat.abs().amax(1) if self.norm == "linf" else (flat**2).sum(1).sqrt()
        return sizes
