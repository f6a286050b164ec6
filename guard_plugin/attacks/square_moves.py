"""The images that the Square attack tries, in each of its balls.

The sizes, the shapes and their distribution are those of the authors' code, as AutoAttack runs it.
"""

import math
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.balls import lengths

__all__ = ["L2Moves", "LinfMoves", "share_at"]

_CHANGES_AT = 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000
_TINY = 1e-12


def share_at(query: int, p_init: float) -> float:
    """Return the share of the image that the square of a query covers; it is halved after certain queries."""
    return float(p_init / 2 ** sum(query > change for change in _CHANGES_AT))


class _Moves:
    """The base of the makers of images to try, for pixels of one shape, from random words (int64 in [0, 2**32)).

    A subclass has two methods. ``start(pixels, words)`` returns the first images to try. ``propose(query, pixels, best,
    words)`` returns the next ones: the best images so far, with other values in a square. There, ``query`` counts from
    0; ``pixels`` and ``best`` have shape (n, channels, height, width), and ``words`` shape (n, words_to_start) or
    (n, words_per_query).

    Args:
        shape: Channels, height and width.
        eps: Radius of the ball.
        p_init: Share of the image that the first square covers.
    """

    smallest_side: ClassVar[int]
    """The smallest side that a square may have."""
    words_to_start: int
    """How many random words ``start`` needs for an example."""
    words_per_query: int
    """How many random words ``propose`` needs for an example."""

    def __init__(self, shape: tuple[int, int, int], eps: float, p_init: float) -> None:
        self._channels, self._height, self._width = shape
        self._eps = eps
        self._p_init = p_init

    def side(self, query: int) -> int:
        """Return the side of the square of a query, in pixels."""
        side = round(math.sqrt(share_at(query, self._p_init) * self._height * self._width))
        return min(max(side, self.smallest_side), self._height, self._width)

    def _windows(self, side: int, words: Tensor) -> Tensor:
        """Return squares at random corners, as places in a flat channel, shape (n, channels, side * side).

        Two words choose the corner of each square; their shape is (n, 2).
        """
        # As in the authors' code, no square reaches the last row and column, because its upper bound is exclusive.
        span = torch.tensor([self._height - side, self._width - side], device=words.device)
        corner = (words * span) >> 32
        reach = torch.arange(side, device=words.device)
        rows, columns = corner[:, :1] + reach, corner[:, 1:] + reach
        return (rows[:, :, None] * self._width + columns[:, None]).flatten(1)[:, None].expand(-1, self._channels, -1)


class LinfMoves(_Moves):
    """Moves at the corners of the Linf ball: vertical stripes to start, then squares of one colour."""

    smallest_side = 1

    def __init__(self, shape: tuple[int, int, int], eps: float, p_init: float) -> None:
        super().__init__(shape, eps, p_init)
        self.words_to_start = self._channels * self._width
        self.words_per_query = 2 + self._channels

    def start(self, pixels: Tensor, words: Tensor) -> Tensor:
        """Return the pixels with vertical stripes of random colours."""
        stripes = _signs(words, pixels).view(-1, self._channels, 1, self._width)
        return (pixels + self._eps * stripes).clamp(0, 1)

    def propose(self, query: int, pixels: Tensor, best: Tensor, words: Tensor) -> Tensor:
        """Return the best images with a square of a random colour."""
        windows = self._windows(self.side(query), words[:, :2])
        colours = self._eps * _signs(words[:, 2:], pixels)[:, :, None]
        # The authors add 2 eps and clip, which leads to the same corner of the ball from wherever ``best`` is.
        values = (pixels.flatten(2).gather(2, windows) + colours).clamp(0, 1)
        return best.flatten(2).scatter(2, windows, values).view_as(best)


class L2Moves(_Moves):
    """Moves in the L2 ball: a grid of bumps of both signs to start, then a bump that takes the mass of two windows."""

    smallest_side = 3

    def __init__(self, shape: tuple[int, int, int], eps: float, p_init: float) -> None:
        super().__init__(shape, eps, p_init)
        self._tile = max(self._height // 5, 1)
        self.words_to_start = len(self._tiles()) * (1 + self._channels)
        self.words_per_query = 5 + self._channels

    def side(self, query: int) -> int:
        """Return the side of the square of a query, in pixels, which is odd where the image allows."""
        side = super().side(query)
        return min(side + (side % 2 == 0), self._height, self._width)

    def start(self, pixels: Tensor, words: Tensor) -> Tensor:
        """Return the pixels with a grid of bumps, scaled to the radius of the ball."""
        delta = torch.zeros_like(pixels)
        tiles = self._tiles()
        for (row, column), drawn in zip(tiles, words.chunk(len(tiles), dim=1), strict=True):
            bumps = self._bumps(self._tile, pixels, drawn).view(len(delta), -1, self._tile, self._tile)
            space = delta[:, :, row : row + self._tile, column : column + self._tile]
            space += bumps[:, :, : space.shape[2], : space.shape[3]]
        return self._on_sphere(pixels, delta)

    def propose(self, query: int, pixels: Tensor, best: Tensor, words: Tensor) -> Tensor:
        """Return the best images with a new bump, which takes the mass of two windows and what the ball has left."""
        side = self.side(query)
        here, there = self._windows(side, words[:, :2]), self._windows(side, words[:, 2:4])
        delta = (best - pixels).flatten(2)
        unused = (self._eps**2 - delta.square().sum((1, 2), keepdim=True)).clamp_min(0)
        old = delta.gather(2, here)
        mass_here = old.square().sum(2, keepdim=True)
        delta.scatter_(2, here, 0.0)
        mass = mass_here + delta.gather(2, there).square().sum(2, keepdim=True)
        delta.scatter_(2, there, 0.0)
        new = self._bumps(side, pixels, words[:, 4:]) + old / (_TINY + mass_here.sqrt())
        length = (unused / self._channels + mass).sqrt()
        delta.scatter_(2, here, new * (length / (_TINY + new.square().sum(2, keepdim=True).sqrt())))
        return self._on_sphere(pixels, delta.view_as(pixels))

    def _tiles(self) -> list[tuple[int, int]]:
        """Return the corners of the tiles of the first grid."""
        first = max((self._height - 5 * self._tile) // 2, 0)
        ends = (first + size // self._tile * self._tile for size in (self._height, self._width))
        rows, columns = (range(first, end, self._tile) for end in ends)
        return [(row, column) for row in rows for column in columns]

    def _bumps(self, side: int, like: Tensor, words: Tensor) -> Tensor:
        """Return an upright or lying bump of either sign for each channel, shape (n, channels, side * side).

        The words have shape (n, 1 + channels); ``like`` gives type and device.
        """
        upright = _bump(side).to(like)
        lies = (words[:, :1] >> 31).bool()
        shape = torch.where(lies, upright.t().flatten(), upright.flatten())
        return shape[:, None] * _signs(words[:, 1:], like)[:, :, None]

    def _on_sphere(self, pixels: Tensor, delta: Tensor) -> Tensor:
        scale = self._eps / (_TINY + lengths(delta))
        return (pixels + delta * scale.to(delta.dtype)).clamp(0, 1)


def _signs(words: Tensor, like: Tensor) -> Tensor:
    """Return 1 or -1 for each word."""
    return ((words >> 31) * 2 - 1).to(like.dtype)


@lru_cache
def _bump(side: int) -> Tensor:
    """Return a positive half over a negative half, of length 1."""
    return _unit(torch.cat([_half_bump(side // 2, side), -_half_bump(side - side // 2, side)]))


def _half_bump(height: int, width: int) -> Tensor:
    """Return nested rectangles whose weight falls with their size, of length 1 (or empty)."""
    bump = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(height, width) // 2 + 1):
        bump[max(top - ring, 0) : top + ring + 1, max(left - ring, 0) : left + ring + 1] += 1 / (ring + 1) ** 2
    return _unit(bump)


def _unit(bump: Tensor) -> Tensor:
    return bump / bump.square().sum().sqrt()
