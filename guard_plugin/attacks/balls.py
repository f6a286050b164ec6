"""The balls that attacks search: their norms, their radii, and the check that an example lies in its ball."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.quantities import parse_number

__all__ = [
    "NORMS",
    "TOLERANCE",
    "AuditFailure",
    "Eps",
    "Norm",
    "audit_examples",
    "ball_radius",
    "distance",
    "lengths",
    "parse_eps",
    "project",
    "steepest",
]

Norm = Literal["linf", "l2", "rms"]
"""How the distance of two images is measured: "linf" is the largest difference of a value, "l2" the Euclidean distance,
and "rms" the root mean square, which is the Euclidean distance over the square root of the number of values. The rms
ball of radius eps is the smallest Euclidean ball around the Linf ball of radius eps."""

NORMS: tuple[Norm, ...] = get_args(Norm)

TOLERANCE = 1e-6
"""How far outside its ball an example may lie, because float32 pixels are rounded."""

_TINY = 1e-12


class AuditFailure(GuardError):
    """An attack returned something that it was not allowed to return."""


@dataclass(frozen=True)
class Eps:
    """A radius in pixel units, where pixels are in [0, 1].

    Args:
        text: The radius as the user wrote it, for instance "8/255".
        value: The same as a number, > 0; attacks in another norm than l2 accept at most 1.

    Raises:
        UnusableInput: If the value is out of range.
    """

    text: str
    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise UnusableInput(f"expected a finite eps > 0, in units of pixels in [0, 1], got {self.text}")


def parse_eps(text: str | float) -> Eps:
    """Read a radius.

    Args:
        text: A number, or text such as "8/255" or "0.03".

    Returns:
        The radius with its text.

    Raises:
        UnusableInput: If the text is neither a number nor a fraction, or the radius is not above 0.

    Example:
        >>> parse_eps("51/255")
        Eps(text='51/255', value=0.2)
    """
    if not isinstance(text, (str, bool)):
        return Eps(str(float(text)), float(text))
    try:
        return Eps(str(text).strip(), parse_number(str(text)))
    except ValueError:
        raise UnusableInput(f"expected eps as a number or a fraction such as 8/255, above 0; got {text!r}") from None


def lengths(delta: Tensor) -> Tensor:
    """Return each example's Euclidean length, in a shape that broadcasts to ``delta``, which is (n, ...)."""
    # In float64, because float32 loses more than TOLERANCE on the sum of 150,000 squares.
    flat: Tensor = torch.linalg.vector_norm(delta.flatten(1).double(), dim=1)
    return flat.view(-1, *[1] * (delta.dim() - 1))


def distance(norm: Norm, a: Tensor, b: Tensor) -> Tensor:
    """Return the distance of each pair of images, shape (n,), float64."""
    delta = (a - b).flatten(1)
    if norm == "linf":
        return delta.double().abs().amax(dim=1)
    euclidean = lengths(delta)[:, 0]
    return euclidean / math.sqrt(delta.shape[1]) if norm == "rms" else euclidean


def ball_radius(norm: Norm, eps: float, pixels: Tensor) -> float:
    """Return the ball's Linf radius for "linf", else its Euclidean radius, for images of shape (n, ...)."""
    return eps * math.sqrt(pixels[0].numel()) if norm == "rms" else eps


def project(norm: Norm, pixels: Tensor, images: Tensor, eps: float) -> Tensor:
    """Return the nearest images in the ball around ``pixels``, clamped to [0, 1]; all of shape (n, ...)."""
    delta = images - pixels
    if norm == "linf":
        return (pixels + delta.clamp(-eps, eps)).clamp(0, 1)
    radius = ball_radius(norm, eps, pixels)
    shrink = (radius / lengths(delta).clamp_min(_TINY)).clamp(max=1)
    return (pixels + delta * shrink.to(delta.dtype)).clamp(0, 1)


def steepest(norm: Norm, gradient: Tensor) -> Tensor:
    """Return the direction of norm 1 in which the loss rises most; it is zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    direction = gradient / lengths(gradient).clamp_min(_TINY).to(gradient.dtype)
    return direction * math.sqrt(gradient[0].numel()) if norm == "rms" else direction


def audit_examples(attack: str, pixels: Tensor, adversarial: Tensor, eps: float, norm: Norm) -> None:
    """Raise AuditFailure unless examples are finite, in [0, 1], in the ball, and of the pixels' shape and type."""
    if adversarial.shape != pixels.shape or adversarial.dtype != pixels.dtype:
        raise AuditFailure(
            f"attack {attack} returned shape {tuple(adversarial.shape)} of {adversarial.dtype} "
            f"for pixels of shape {tuple(pixels.shape)} of {pixels.dtype}"
        )
    distances = distance(norm, adversarial, pixels)
    # NaN and infinity show in the lowest and the highest value; one list makes a GPU's host wait once.
    low, high, farthest = torch.stack([*(bound.double() for bound in adversarial.aminmax()), distances.max()]).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AuditFailure(
            f"attack {attack} returned values that are not finite: the attack is broken or the model's gradient is NaN"
        )
    if low < 0 or high > 1:
        raise AuditFailure(f"attack {attack} left the pixel range [0, 1]: values from {low:.8g} to {high:.8g}")
    if farthest > eps + TOLERANCE:
        raise AuditFailure(f"attack {attack} left its ball: {norm} distance {farthest:.8g} where eps is {eps:.8g}")
