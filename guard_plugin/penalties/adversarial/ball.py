"""Where adversarial examples may lie, and the search for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guard_plugin.spaces import Normalization

__all__ = ["Ball", "ascend", "ball_around"]


@dataclass(frozen=True)
class Ball:
    """The Linf balls around a batch, cut to pixels in [0, 1] where the normalisation is known.

    Args:
        centre: The batch.
        pixel: One unit of eps in the network's input space; its shape is that of the batch, or broadcasts to it.
        lower: The least values allowed, in the shape of the batch.
        upper: The greatest values allowed.
    """

    centre: Tensor
    pixel: Tensor
    lower: Tensor
    upper: Tensor


def ball_around(centre: Tensor, eps: float, mean: Sequence[float], std: Sequence[float]) -> Ball:
    """Make the balls of radius eps around a batch: in pixels where mean and std are given, else in the input's units.

    With mean and std they are cut to pixels in [0, 1]. A value that the host itself put outside that range (by
    augmentation) may stay where it is, and go no further out.
    """
    if not mean:
        return Ball(centre, torch.ones_like(centre), centre - eps, centre + eps)
    normalization = Normalization(tuple(mean), tuple(std))
    black, white = normalization.to_input(torch.zeros_like(centre)), normalization.to_input(torch.ones_like(centre))
    pixel = white - black
    lower = torch.maximum(centre - eps * pixel, torch.minimum(black, centre))
    upper = torch.minimum(centre + eps * pixel, torch.maximum(white, centre))
    return Ball(centre, pixel, lower, upper)


def ascend(objective: Callable[[Tensor], Tensor], start: Tensor, ball: Ball, *, steps: int, step_size: float) -> Tensor:
    """Search the balls for points of a greater objective, by steps along the gradient's sign.

    Args:
        objective: From n points to n values; each depends on its own point only.
        start: Where to begin, shape (n, ...).
        ball: Where to stay.
        steps: How many steps to take.
        step_size: The length of a step, in the units of eps.
    """
    points = start.detach().clamp(ball.lower, ball.upper)
    for _ in range(steps):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(points).sum(), points)
        moved = points.detach() + step_size * ball.pixel * gradient.sign()
        points = moved.clamp(ball.lower, ball.upper)
    return points
