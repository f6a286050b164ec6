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

    def nearest(self, points: Tensor) -> Tensor:
        """Return the points of the balls that are nearest to the given ones."""
        return torch.clamp(points, self.lower, self.upper)


def ball_around(inputs: Tensor, eps: float, mean: Sequence[float], std: Sequence[float]) -> Ball:
    """Make the balls around a batch.

    Args:
        inputs: What the host gave its network, shape (n, ...).
        eps: Their radius: in pixels where mean and std are given, else in the units of the input.
        mean: What the host subtracted from the pixels, per channel, or nothing.
        std: What it divided them by.

    Returns:
        The balls; if mean and std are given, cut to pixels in [0, 1]. A value that the host itself put outside that
        range (by augmentation) may stay where it is, and go no further out.
    """
    centre = inputs.detach()
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

    Returns:
        The points after the last step, detached.
    """
    points = ball.nearest(start.detach())
    for _ in range(steps):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(points).sum(), points)
        points = ball.nearest(points.detach() + step_size * ball.pixel * gradient.sign())
    return points
