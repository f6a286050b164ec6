"""The balls that attacks search."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["NORMS", "Norm", "ball_radius", "distance", "lengths", "project", "steepest"]

Norm = Literal["linf", "l2", "rms"]
"""How the distance of two images is measured: the largest difference of a value, the Euclidean one, or the root mean
square, which is the Euclidean one over the square root of the number of values: its ball of radius eps is the smallest
Euclidean ball around the Linf ball of radius eps."""

NORMS: tuple[Norm, ...] = get_args(Norm)

_TINY = 1e-12


def lengths(delta: Tensor) -> Tensor:
    """Each example's Euclidean length, in a shape that broadcasts to ``delta``, which is (n, ...)."""
    # In float64: the audit allows less than float32 loses on the sum of 150,000 squares.
    flat: Tensor = torch.linalg.vector_norm(delta.flatten(1).double(), dim=1)
    return flat.view(-1, *[1] * (delta.dim() - 1))


def distance(norm: Norm, a: Tensor, b: Tensor) -> Tensor:
    """The distance of each pair of images, shape (n,), float64."""
    delta = (a - b).flatten(1).double()
    if norm == "linf":
        return delta.abs().amax(dim=1)
    euclidean: Tensor = torch.linalg.vector_norm(delta, dim=1)
    return euclidean / math.sqrt(delta.shape[1]) if norm == "rms" else euclidean


def ball_radius(norm: Norm, eps: float, pixels: Tensor) -> float:
    """The radius of the ball in its own metric, Linf or Euclidean, for images of shape (n, ...)."""
    return eps * math.sqrt(pixels[0].numel()) if norm == "rms" else eps


def project(norm: Norm, pixels: Tensor, images: Tensor, eps: float) -> Tensor:
    """The nearest images in the ball around ``pixels``, then in [0, 1]; all of shape (n, ...)."""
    delta = images - pixels
    if norm == "linf":
        return (pixels + delta.clamp(-eps, eps)).clamp(0, 1)
    radius = ball_radius(norm, eps, pixels)
    shrink = (radius / lengths(delta).clamp_min(_TINY)).clamp(max=1)
    return (pixels + delta * shrink.to(delta.dtype)).clamp(0, 1)


def steepest(norm: Norm, gradient: Tensor) -> Tensor:
    """The direction of unit length, in that norm, which the gradient favours most; zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    direction = gradient / lengths(gradient).clamp_min(_TINY).to(gradient.dtype)
    return direction * math.sqrt(gradient[0].numel()) if norm == "rms" else direction
