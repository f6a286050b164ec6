"""How curved the loss is around each image: the largest eigenvalue of the input Hessian, and GUARD's surrogate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from guard_plugin.attacks import uniform_per_example
from guard_plugin.datasets.image_set import check_labels, check_pixels
from guard_plugin.diagnostics.hessian import InputHessian, dot, input_gradients, norms
from guard_plugin.diagnostics.lanczos import largest_eigenpairs, tolerated
from guard_plugin.errors import UnusableInput
from guard_plugin.networks.pixel_model import PixelModel, check_mode, finite_logits
from guard_plugin.penalties import LossFunction
from guard_plugin.penalties.checks import check_batch, check_h, check_network
from guard_plugin.penalties.per_example import Losses, cross_entropy, unit
from guard_plugin.penalties.undisturbed import undisturbed
from guard_plugin.progress import tracked
from guard_plugin.versions import plain_attention

__all__ = ["CurvatureReport", "Space", "curvature_at", "input_curvature", "network_in_space"]

Space = Literal["input", "pixel"]


@dataclass(frozen=True)
class CurvatureReport:
    """Curvature per example; every tensor has shape (n,).

    Args:
        loss: The loss l(x).
        gradient_norm: ||g||_2 of the input gradient g.
        largest: The algebraically largest eigenvalue of the input Hessian H: lambda_1 in the paper's Eq. 6 to 9.
        residual: ||H v1 - largest v1||_2 for the unit eigenvector v1 that was found: an eigenvalue of H lies within
            this distance of ``largest``.
        converged: Whether ``residual`` is at most ``tol`` times |largest|, or rounding next to ||H||.
        steps: How many Hessian-vector products Lanczos' method spent.
        surrogate: What GUARD penalises in place of ``largest``: ||grad l(x + h z) - grad l(x)||_2 / h with
            z = g / ||g||_2, which takes the place of v1 in the paper's Eq. 10.
        cosine: |<z, v1>|; NaN where g or H is 0.
        h: The length of the surrogate's step.
    """

    loss: Tensor
    gradient_norm: Tensor
    largest: Tensor
    residual: Tensor
    converged: Tensor
    steps: Tensor
    surrogate: Tensor
    cosine: Tensor
    h: float

    def per_example(self) -> dict[str, list[Any]]:
        """Return the values by name, for JSON, with None in place of NaN."""
        return {
            name: [None if isinstance(value, float) and math.isnan(value) else value for value in values.tolist()]
            for name, values in vars(self).items()
            if isinstance(values, Tensor)
        }


def input_curvature(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    *,
    h: float,
    space: Space = "input",
    steps: int = 30,
    tol: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
) -> CurvatureReport:
    """Measure the curvature of the cross entropy around images.

    Curvature depends on the space: with per-channel normalisation by one std, pixel space has 1/std^2 times the
    curvature of the network's input space, and 1/std times the gradient. The authors' code takes h in input space.

    Args:
        model: A classifier in pixel space, in eval mode; for space "input", a ``PixelModel``.
        pixels: Shape (n, channels, height, width), in [0, 1], on the model's device.
        labels: Shape (n,), int64.
        h: Length > 0 of the surrogate's step, in ``space``.
        space: "input": with respect to what the network behind the normalisation takes; "pixel": to the pixels.
        steps: The most Hessian-vector products of Lanczos' method. A network of ReLUs and a softmax over C classes has
            a Hessian of rank at most C - 1, where C steps are enough.
        tol: When an eigenvalue counts as converged: residual <= tol * its magnitude, or rounding next to ||H||.
        batch_size: Examples at once. Memory holds the batch's graph and ``steps`` vectors per example.
        seed: The seed of the start vectors; each depends on it and on its example's position only.

    Returns:
        The report, on the CPU.

    Raises:
        UnusableInput: If the model, the images or a setting cannot be worked with.
    """
    network, to_space = network_in_space(model, pixels, labels, space, batch_size)
    return curvature_at(network, to_space(pixels), labels, h=h, steps=steps, tol=tol, batch_size=batch_size, seed=seed)


def network_in_space(
    model: nn.Module, pixels: Tensor, labels: Tensor, space: Space, batch_size: int
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Check the arguments; return the network whose inputs are in ``space``, and the map from pixels to that space."""
    if space not in get_args(Space):
        raise UnusableInput(f"expected space to be one of {', '.join(get_args(Space))}, got {space!r}")
    check_network(model)
    check_mode(model)
    check_pixels(pixels)
    check_labels(labels, len(pixels), finite_logits(model, pixels[: max(1, batch_size)]).shape[1])
    if space == "pixel":
        return model, nn.Identity()
    if not isinstance(model, PixelModel):
        raise UnusableInput(
            f'expected a guard_plugin.evaluation.PixelModel for space "input", as it tells where that space begins; '
            f'got {type(model).__name__}: wrap the network in one, or choose space "pixel"'
        )
    return model.network, model.normalization.to_input


def curvature_at(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    h: float,
    steps: int = 30,
    tol: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
    loss_fn: LossFunction | None = None,
) -> CurvatureReport:
    """Measure the curvature of a loss with respect to what a network takes, whatever that is.

    As ``input_curvature``, for a network in eval mode, inputs of shape (n, ...) in floating point and in the network's
    precision, targets of length n, and a ``loss_fn`` that maps outputs and targets to n losses: cross entropy by
    default.

    Raises:
        UnusableInput: If an argument cannot be worked with.
    """
    check_h(h)
    check_batch(network, inputs, targets)
    check_mode(network)
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        if count < 1:
            raise UnusableInput(f"expected {name} >= 1, got {count}")
    if not 0 < tol < 1:
        raise UnusableInput(f"expected 0 < tol < 1, got {tol}")
    batches = torch.split(torch.arange(len(inputs)), batch_size)
    parts = []
    with undisturbed(network, inputs.device), torch.enable_grad(), plain_attention():
        for batch in tracked(batches, "curvature", len(batches), "batch"):
            start = uniform_per_example(inputs[batch], seed=seed, indices=batch)
            losses = Losses(network, targets[batch].to(inputs.device), loss_fn or cross_entropy)
            parts.append(_measured(losses, inputs[batch], start, h=h, steps=steps, tol=tol))
    return CurvatureReport(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]}, h=h)


def _measured(losses: Losses, inputs: Tensor, start: Tensor, *, h: float, steps: int, tol: float) -> dict[str, Tensor]:
    """Measure one batch: the tensors of ``CurvatureReport`` by name."""
    hessian = InputHessian(losses, inputs)
    pairs = largest_eigenpairs(hessian.product, start, steps=steps, tol=tol)
    loss, gradients = hessian.losses, hessian.gradients
    del hessian  # and with it the graph, before another one is built
    z = unit(gradients)
    _, there = input_gradients(losses, inputs + h * z)
    cosine = dot(z, pairs.vectors).abs()
    cosine[(norms(z) == 0) | (pairs.scales == 0)] = math.nan
    found = {
        "loss": loss,
        "gradient_norm": norms(gradients),
        "largest": pairs.values,
        "residual": pairs.residuals,
        "converged": pairs.residuals <= tolerated(pairs.values, pairs.scales, tol=tol, dtype=inputs.dtype),
        "steps": pairs.steps,
        "surrogate": norms(there - gradients) / h,
        "cosine": cosine,
    }
    return {name: value.cpu() for name, value in found.items()}
