"""The nearest point of [0, 1]^d on a hyperplane, step by step as pyautoattack computes it, but with masks alone.

pyautoattack picks the rows of each case, and which they are is known to the device alone, so that a GPU's host waits.
Here all rows compute all cases. In both functions ``points`` and ``weights`` have shape (n, d), ``offsets`` has shape
(n,), a point x lies on its hyperplane where <weights, x> = offset, and the steps that are returned have shape (n, d).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["project_l2", "project_linf"]

_FAR = 1e12
_FLAT = 1e-8
"""In the Euclidean norm, weights up to here count as 0."""


def project_linf(points: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Return the step onto each hyperplane, within the box, whose largest value is smallest.

    Where the box does not reach the hyperplane, the step goes to the corner of the box that is nearest to it.
    """
    sign = 2 * ((weights * points).sum(1) - offsets >= 0) - 1
    w, b = weights * sign[:, None], offsets * sign
    rises = (w < 0).float()
    reach = (rises - points) * (w != 0).float()
    room = rises - points * (2 * rises - 1)
    order = room.argsort(dim=1)
    largest_first = order.flip((1,))
    b, whole = b - (w * points).sum(1), (w * reach).sum(1)
    sorted_w = w.gather(1, largest_first)
    slopes = sorted_w.abs().cumsum(1)
    gains = (-sorted_w * reach.gather(1, largest_first)).cumsum(1) + whole[:, None]

    def is_beyond(place: Tensor) -> Tensor:
        length = room.gather(1, order.gather(1, order.shape[1] - 1 - place))
        return (b - (gains.gather(1, place) - slopes.gather(1, place) * length)[:, 0]) > 0

    def length_at(place: Tensor) -> Tensor:
        return ((b - gains.gather(1, place)[:, 0]) / -slopes.gather(1, place)[:, 0]).clamp_min(0)[:, None]

    end = torch.full_like(order[:, :1], order.shape[1] - 1)
    free = is_beyond(end)[:, None]
    partly = (b - whole > 0)[:, None] & ~free
    length = length_at(_last(is_beyond, order))
    within = torch.min(length, reach) * rises + torch.max(-length, reach) * (1 - rises)
    step = torch.where(free, (2 * rises - 1) * length_at(end), torch.where(partly, within, reach))
    return step * (w != 0).float()


def project_l2(points: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Return the shortest step onto each hyperplane, within the box, in the Euclidean norm.

    Where the box does not reach the hyperplane, the step goes to the corner of the box that is nearest to it.
    """
    excess = (weights * points).sum(1) - offsets
    sign = 2 * (excess >= 0) - 1
    w, excess = weights * sign[:, None], excess * sign
    room = torch.max(points / w, (points - 1) / w).clamp(-_FAR, _FAR).masked_fill(w.abs() < _FLAT, _FAR)
    room = torch.where(room == -_FAR, -room, room)
    ordered, order = room.sort(dim=1)
    following = F.pad(ordered[:, 1:], (0, 1))
    ordered, following = (rooms.masked_fill(rooms == _FAR, 0) for rooms in (ordered, following))
    squares = (w**2).gather(1, order)
    total = squares.sum(dim=1, keepdim=True)
    left = total - squares.cumsum(1)
    reach = -(room * w) * (w.abs() > _FLAT).float()
    first = -total * ordered[:, :1]
    gains = torch.cat((first, ((-following + ordered) * left).cumsum(1) + first), 1)

    def is_beyond(place: Tensor) -> Tensor:
        return gains.gather(1, place)[:, 0] + excess > 0

    free = gains[:, 0] + excess < 0
    partly = ~(free | ((reach * w).sum(1) + excess > 0))
    place = _last(is_beyond, order)
    rest = left.gather(1, place)
    length = (gains.gather(1, place) + excess[:, None]) / rest + ordered.gather(1, place)
    length = torch.where(rest == 0, torch.zeros_like(length), length)
    clipped = (length > room).float()
    within = reach * clipped - length * w * (1 - clipped)
    step = torch.where(free[:, None], -(excess[:, None] / total) * w, torch.where(partly[:, None], within, reach))
    return step * (w.abs() > _FLAT).float()


def _last(holds: Callable[[Tensor], Tensor], order: Tensor) -> Tensor:
    """Return each row's last place up to which something holds, shape (n, 1), by bisection of the d places."""
    low = torch.zeros_like(order[:, :1])
    high = low + order.shape[1] - 1
    for _ in range(math.ceil(math.log2(order.shape[1]))):
        middle = (low + high) // 2
        held = holds(middle)[:, None]
        low, high = torch.where(held, middle, low), torch.where(held, high, middle)
    return low
