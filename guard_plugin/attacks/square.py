"""The Square attack, and the images that it tries in each of its balls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.balls import Norm, lengths
from guard_plugin.attacks.base import Attack, parse_count
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Criterion, Unfinished, is_time_to_pack, where_rows
from guard_plugin.attacks.randomness import words_per_example
from guard_plugin.errors import UnusableInput
from guard_plugin.versions import strict_zip

__all__ = ["L2Moves", "LinfMoves", "Square", "share_at"]

_CHANGES_AT = 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000
_TINY = 1e-12
_BLOCK = 32
"""The number of queries whose random words are drawn at once."""


@dataclass(frozen=True)
class Square(Attack):
    """Random search by squares of shrinking size, without gradients (Andriushchenko et al., 2020).

    The search is that of AutoAttack, which has 5000 queries; "square1000" has 1000. The size of the square depends on
    the number of the query alone, so fewer queries are the beginning of more. As in AutoAttack, the start is one query
    more.

    Two things differ from AutoAttack. Each example has squares and colours of its own, from (seed, index, query), so
    its outcome does not depend on the other examples, and the remaining examples of many batches can share passes. And
    an example is finished when the model chooses another class, not when two classes tie.

    Args:
        queries: Number of squares to try, >= 1.
        p_init: Share of the image that the first square covers, in (0, 1].

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    family: ClassVar[str] = "square"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    whitebox: ClassVar[bool] = False
    _at_least_1: ClassVar[Sequence[str]] = ("queries",)
    constants: ClassVar[Mapping[str, Any]] = {"loss": "margin", "restarts": 1, "rescaled_schedule": False}

    queries: int = 5000
    p_init: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p_init <= 1:
            raise UnusableInput(f"expected square with 0 < p_init <= 1, got {self.p_init}")

    @classmethod
    def from_spec(cls, suffix: str, **common: Any) -> Square:
        """Read the number of queries from the name: "1000" in "square1000", 5000 if there is none."""
        return cls(queries=parse_count(cls.family, suffix) if suffix else cls.queries, **common)

    @property
    def base_name(self) -> str:
        """The family, with the number of queries where it is not the usual one."""
        return self.family if self.queries == type(self).queries else f"{self.family}{self.queries}"

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        kind: type[LinfMoves | L2Moves] = LinfMoves if self.norm == "linf" else L2Moves
        moves = kind(pixels.shape[1:], self.eps.value, self.p_init)
        # The start has time 0 of the random words, query t has time t + 1.
        indices = indices.to(pixels.device)
        words = words_per_example(moves.words_to_start, seed=self.seed, indices=indices, times=range(1))
        start = moves.start(pixels, words[:, 0])
        places = torch.arange(len(pixels), device=pixels.device)
        margins = pixels.new_full((len(pixels),), torch.inf)
        result = start.clone()
        live = torch.ones_like(places, dtype=torch.bool)
        active = _Active(places, live, pixels, start, margins, Criterion(labels), indices, words)
        active = active.after(start, classifier.logits(start))
        for query in range(self.queries):
            if is_time_to_pack(query, self.queries):
                result[active.places] = active.best
                active = active.packed()
                if not len(active.places):
                    break
            if query % _BLOCK == 0:
                times = range(query + 1, query + 1 + _BLOCK)
                words = words_per_example(moves.words_per_query, seed=self.seed, indices=active.indices, times=times)
                active = replace(active, words=words)
            images = moves.propose(query, active.pixels, active.best, active.words[:, query % _BLOCK])
            active = active.after(images, classifier.logits(images))
        result[active.places] = active.best
        return result


@dataclass(frozen=True)
class _Active(Unfinished):
    """The examples that are not fooled yet, and some that are."""

    pixels: Tensor
    best: Tensor
    margins: Tensor
    criterion: Criterion
    indices: Tensor
    words: Tensor

    def after(self, images: Tensor, logits: Tensor) -> _Active:
        """Keep images that come closer to fooling, and finish the examples of those that fool."""
        margins, reached = self.criterion.margin(logits), self.criterion.reached(logits)
        better = ((margins < self.margins) | reached) & self.live
        best = where_rows(better, images, self.best)
        margins = torch.where(better, margins, self.margins)
        return replace(self, best=best, margins=margins, live=self.live & ~reached)


def share_at(query: int, p_init: float) -> float:
    """Return the share of the image that the square of a query covers; it is halved after certain queries."""
    return float(p_init / 2 ** sum(query > change for change in _CHANGES_AT))


class _Moves:
    """The base of the makers of images to try, for pixels of one shape, from random words (int64 in [0, 2**32)).

    A subclass has two methods. ``start(pixels, words)`` returns the first images to try. ``propose(query, pixels, best,
    words)`` returns the next ones: the best images so far, with other values in a square, where ``query`` counts from
    0. Sizes, shapes and their distribution are those of the authors' code, as AutoAttack runs it.
    """

    smallest_side: ClassVar[int]
    """The smallest side that a square may have."""
    words_to_start: int
    """How many random words ``start`` needs for an example."""
    words_per_query: int
    """How many random words ``propose`` needs for an example."""

    def __init__(self, shape: tuple[int, ...], eps: float, p_init: float) -> None:
        self._channels, self._height, self._width = shape
        self._eps, self._p_init = eps, p_init

    def side(self, query: int) -> int:
        """Return the side of the square of a query, in pixels."""
        side = round(math.sqrt(share_at(query, self._p_init) * self._height * self._width))
        return min(max(side, self.smallest_side), self._height, self._width)

    def _windows(self, side: int, words: Tensor) -> Tensor:
        """Return squares at corners chosen by two words each, as places in a flat channel, (n, channels, side**2)."""
        # As in the authors' code, no square reaches the last row and column, because its upper bound is exclusive.
        reach = torch.arange(side, device=words.device)
        rows = (words[:, :1] * (self._height - side) >> 32) + reach
        columns = (words[:, 1:] * (self._width - side) >> 32) + reach
        return (rows[:, :, None] * self._width + columns[:, None]).flatten(1)[:, None].expand(-1, self._channels, -1)


class LinfMoves(_Moves):
    """Moves at the corners of the Linf ball: vertical stripes to start, then squares of one colour."""

    smallest_side = 1

    def __init__(self, shape: tuple[int, ...], eps: float, p_init: float) -> None:
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

    def __init__(self, shape: tuple[int, ...], eps: float, p_init: float) -> None:
        super().__init__(shape, eps, p_init)
        self._tile = max(self._height // 5, 1)
        first = max((self._height - 5 * self._tile) // 2, 0)
        ends = (first + size // self._tile * self._tile for size in (self._height, self._width))
        rows, columns = (range(first, end, self._tile) for end in ends)
        self._corners = [(row, column) for row in rows for column in columns]
        self.words_to_start = len(self._corners) * (1 + self._channels)
        self.words_per_query = 5 + self._channels

    def side(self, query: int) -> int:
        """Return the side of the square of a query, in pixels, which is odd where the image allows."""
        side = super().side(query)
        return min(side + (side % 2 == 0), self._height, self._width)

    def start(self, pixels: Tensor, words: Tensor) -> Tensor:
        """Return the pixels with a grid of bumps, scaled to the radius of the ball."""
        delta = torch.zeros_like(pixels)
        for (row, column), drawn in strict_zip(self._corners, words.chunk(len(self._corners), dim=1)):
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

    def _bumps(self, side: int, like: Tensor, words: Tensor) -> Tensor:
        """Return an upright or lying bump of either sign for each channel, shape (n, channels, side**2)."""
        upright = _bump(side, like.device, like.dtype)
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
def _bump(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a positive half over a negative half, of length 1."""
    return _unit(torch.cat([_half_bump(side // 2, side), -_half_bump(side - side // 2, side)])).to(device, dtype)


def _half_bump(height: int, width: int) -> Tensor:
    """Return nested rectangles whose weight falls with their size, of length 1 (or empty)."""
    bump = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(height, width) // 2 + 1):
        bump[max(top - ring, 0) : top + ring + 1, max(left - ring, 0) : left + ring + 1] += 1 / (ring + 1) ** 2
    return _unit(bump)


def _unit(bump: Tensor) -> Tensor:
    return bump / bump.square().sum().sqrt()
