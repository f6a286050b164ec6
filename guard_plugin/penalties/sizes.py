"""Carrying settings of the curvature penalty over to inputs of another size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from guard_plugin.errors import UnusableInput
from guard_plugin.penalties.checks import check_h, check_number

__all__ = ["scale_h", "scale_strength"]


def scale_h(h: float, *, from_shape: Sequence[int], to_shape: Sequence[int]) -> float:
    """Carry a step length over to inputs of another size, keeping the step per input value the same.

    h is the L2 length of a step over all values of an input: spread evenly, each value moves by h / sqrt(number of
    values). The paper's h = 3 at 3x224x224 moves each by 0.0077; the same h at 3x32x32 would move each seven times
    as far.

    Args:
        h: A step length > 0 for inputs of shape ``from_shape``.
        from_shape: The shape of one input, e.g. (3, 224, 224).
        to_shape: The shape of one input of the other size, e.g. (3, 32, 32).

    Returns:
        ``h * sqrt(prod(to_shape) / prod(from_shape))``.

    Raises:
        UnusableInput: If h is not positive, or a shape not one of positive sizes.

    Example:
        >>> round(scale_h(3.0, from_shape=(3, 224, 224), to_shape=(3, 32, 32)), 4)
        0.4286
    """
    check_h(h)
    return h * math.sqrt(_ratio(from_shape, to_shape))


def scale_strength(strength: float, *, from_shape: Sequence[int], to_shape: Sequence[int]) -> float:
    """Carry the strength of the gradient form over to *enlarged* inputs: the penalty then stays the same.

    A network that averages an input enlarged k times back to the size that it knows has input gradients 1/k as long,
    and Hessian eigenvalues 1/k^2 as large. With h by :func:`scale_h` and strength by this function, the gradient form
    is exactly the same at both sizes; the loss form is with the same strength (docs/penalty.md derives both). Networks
    that are trained on sharper images are not such networks: docs/measurements.md has the strengths that acted.

    Args:
        strength: A strength >= 0 for inputs of shape ``from_shape``.
        from_shape: The shape of one input, e.g. (3, 32, 32).
        to_shape: The shape of one input of the other size, e.g. (3, 64, 64).

    Returns:
        ``strength * prod(to_shape) / prod(from_shape)``.

    Raises:
        UnusableInput: If the strength is negative, or a shape not one of positive sizes.

    Example:
        >>> scale_strength(1.0, from_shape=(1, 8, 8), to_shape=(1, 32, 32))
        16.0
    """
    check_number("strength", strength, zero=True)
    return strength * _ratio(from_shape, to_shape)


def _ratio(from_shape: Sequence[int], to_shape: Sequence[int]) -> float:
    if not from_shape or not to_shape or min(*from_shape, *to_shape) < 1:
        raise UnusableInput(f"expected shapes of positive sizes, got {tuple(from_shape)} and {tuple(to_shape)}")
    return math.prod(to_shape) / math.prod(from_shape)
