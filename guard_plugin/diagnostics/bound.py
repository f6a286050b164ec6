"""GUARD's bound on the adversarial loss of distilled images (the paper's Proposition 1), with every term measured.

For an image x' distilled from class c, Proposition 1 (section 4.2, Eq. 7) says that

    ladv_rho(x') <= E_c l(x) + rho E_c ||grad l(x)|| + rho^2 / 2 E_c lambda_1(x) + L sigma,

where E_c is the mean over the real images of class c, ladv_rho the adversarial loss of the quadratic model in the L2
ball of radius rho, lambda_1 the largest eigenvalue of the Hessian, and ||f(x') - E_c f(x)|| <= sigma for a feature
extractor f. Eq. 8 drops the gradient term; Eq. 6 is the same for real images, without L sigma. docs/diagnostics.md has
the assumptions, and what they leave open; ``bound`` says what is taken for L.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from guard_plugin.diagnostics.ascent import Ascent, BallAttack
from guard_plugin.diagnostics.bound_report import ROUNDED_UP, BoundReport, ClassBound
from guard_plugin.diagnostics.curvature import CurvatureReport, Space, curvature_at, network_in_space
from guard_plugin.diagnostics.features import Features, Penultimate, largest_slope, lipschitz_of_head, penultimate
from guard_plugin.diagnostics.hessian import norms
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.penalties import undisturbed
from guard_plugin.penalties.per_example import Losses, cross_entropy

__all__ = ["bound"]


def bound(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    distilled: DistilledSet,
    *,
    rho: float,
    space: Space = "input",
    features: Features | None = None,
    attack: BallAttack | None = None,
    steps: int = 30,
    tol: float = 1e-3,
    batch_size: int = 32,
) -> BoundReport:
    """Measure both sides of Proposition 1, GUARD's bound on the adversarial loss of distilled images.

    Args:
        model: A classifier in pixel space, in eval mode; for space "input", a ``PixelModel``.
        pixels: Real images of shape (n, channels, height, width), in [0, 1], on the model's device.
        labels: Shape (n,), int64.
        distilled: The distilled set; of soft labels, the likeliest class counts.
        rho: The ball's L2 radius > 0, in ``space``.
        space: As for ``input_curvature``.
        features: The feature extractor f, on what is in ``space``; by default, what the last linear layer takes. Then
            L is exact for the clean loss: max_k ||w_k - w_c|| (``lipschitz_of_head``). Otherwise L is the largest slope
            of the clean loss between two images of the class, real or distilled.
        attack: What looks for the largest loss in the ball; by default ``Ascent()``.
        steps: As for ``input_curvature``.
        tol: As for ``input_curvature``.
        batch_size: As for ``input_curvature``.

    Returns:
        The terms per class, and whether the inequality held. ``NOTES`` says what that means.

    Raises:
        UnusableInput: If an argument cannot be worked with, or no class has real and distilled images.
        GuardError: If the attack leaves its ball.
    """
    if not (isinstance(rho, (int, float)) and 0 < rho < float("inf")):
        raise UnusableInput(f"expected rho, an L2 radius in {space} space, to be a finite number > 0, got {rho!r}")
    network, to_space = network_in_space(model, pixels, labels, space, batch_size)
    if distilled.images.shape[1:] != pixels.shape[1:]:
        raise UnusableInput(
            f"expected distilled images of shape {tuple(pixels.shape[1:])}, as the real ones, "
            f"got {tuple(distilled.images.shape[1:])}"
        )
    real = to_space(pixels)
    # Not clipped: students see what is outside [0, 1].
    synthetic = to_space(distilled.normalization.to_pixels(distilled.images).to(pixels))
    classes = distilled.hard_labels
    both = sorted(set(classes.tolist()) & set(labels.tolist()))
    if not both:
        raise UnusableInput("expected classes with real and distilled images, found none in common")
    extract = features or penultimate(network, real[:1])
    curvature = partial(curvature_at, network, h=rho, steps=steps, tol=tol, batch_size=batch_size)
    measure = _Measurement(network, curvature, extract, attack or Ascent(), rho, batch_size)
    return BoundReport(
        classes=tuple(measure.of_class(c, real[labels == c], synthetic[classes == c]) for c in both),
        missing=tuple(sorted(set(classes.tolist()) ^ set(labels.tolist()))),
        rho=rho,
        space=space,
        lipschitz="exact" if isinstance(extract, Penultimate) else "largest slope",
    )


@dataclass(frozen=True)
class _Measurement:
    """The measurement of one class, with the settings that all classes share."""

    network: nn.Module
    curvature: Callable[[Tensor, Tensor], CurvatureReport]
    features: Features
    attack: BallAttack
    rho: float
    batch_size: int

    def of_class(self, label: int, real: Tensor, synthetic: Tensor) -> ClassBound:
        found = self.curvature(real, torch.full((len(real),), label, device=real.device))
        made, mean = self._features(synthetic), self._features(real).mean(dim=0)
        sigmas = norms(made - mean).cpu()
        lipschitz = self._lipschitz(label, torch.cat([real, synthetic]))
        loss, gradient_term = found.loss.mean(), self.rho * found.gradient_norm.mean()
        curvature_term = self.rho**2 / 2 * found.largest.clamp(min=0).mean()
        adversarial = self._adversarial_losses(label, synthetic)
        right = loss + curvature_term + lipschitz * sigmas
        return ClassBound(
            label=label,
            n_real=len(real),
            n_distilled=len(synthetic),
            loss=float(loss),
            gradient_norm=float(found.gradient_norm.mean()),
            curvature=float(found.largest.mean()),
            not_converged=int((~found.converged).sum()),
            gradient_term=float(gradient_term),
            curvature_term=float(curvature_term),
            lipschitz=lipschitz,
            sigma=float(sigmas.mean()),
            distance_of_means=float((made.mean(dim=0) - mean).norm()),
            adversarial_loss=float(adversarial.mean()),
            adversarial_loss_real=float(self._adversarial_losses(label, real).mean()),
            images_held=int((adversarial <= right * ROUNDED_UP).sum()),
            images_held_with_gradient=int((adversarial <= (right + gradient_term) * ROUNDED_UP).sum()),
        )

    def _losses(self, label: int, inputs: Tensor) -> Losses:
        return Losses(self.network, torch.full((len(inputs),), label, device=inputs.device), cross_entropy)

    def _features(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.features(batch).flatten(1) for batch in torch.split(inputs, self.batch_size)])

    def _lipschitz(self, label: int, images: Tensor) -> float:
        if isinstance(self.features, Penultimate):
            return lipschitz_of_head(self.features.head, label)
        with torch.no_grad():
            losses = [self._losses(label, batch)(batch) for batch in torch.split(images, self.batch_size)]
        return largest_slope(torch.cat(losses), self._features(images))

    def _adversarial_losses(self, label: int, inputs: Tensor) -> Tensor:
        found = []
        with undisturbed(self.network, inputs.device), torch.enable_grad():
            for indices in torch.split(torch.arange(len(inputs)), self.batch_size):
                batch = inputs[indices]
                losses = self._losses(label, batch)
                adversarial = self.attack(losses, batch, self.rho, indices).detach()
                offsets, rounding = norms(adversarial - batch), torch.finfo(batch.dtype).eps * norms(batch)
                if not bool((offsets <= self.rho * ROUNDED_UP + rounding).all()):
                    raise GuardError(
                        f"expected the attack to stay in the L2 ball of radius rho = {self.rho:.8g}, but it left its "
                        f"ball: it returned an image at distance {float(offsets.max()):.8g}"
                    )
                with torch.no_grad():
                    found.append(losses(adversarial).cpu())
        return torch.cat(found)
