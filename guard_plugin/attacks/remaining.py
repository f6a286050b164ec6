"""Going on with the examples that remain, while those that are fooled are left out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["PerExample", "Round", "attack_remaining"]

_PerExample = TypeVar("_PerExample", bound="PerExample")

Round = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Attacks some examples, given by their rows, shape (m,); returns their images, and whether each image fools."""


@dataclass(frozen=True)
class PerExample:
    """Base of frozen dataclasses in which every field is None or has a row for each example."""

    def of(self: _PerExample, rows: Tensor) -> _PerExample:
        """Return the same for some of the examples, chosen by place or by mask."""
        return replace(self, **{field.name: _rows(getattr(self, field.name), rows) for field in fields(self)})


def _rows(value: Any, rows: Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_rows(one, rows) for one in value)
    if isinstance(value, PerExample):
        return value.of(rows)
    return None if value is None else value[rows]


def attack_remaining(pixels: Tensor, remaining: Tensor, rounds: Iterable[Round], *, size: int) -> Tensor:
    """Run the rounds one after the other, each on the examples that no earlier round fooled.

    Args:
        pixels: Shape (n, ...).
        remaining: Shape (n,), bool: the examples to attack.
        rounds: The rounds, in order.
        size: How many examples a round is given at once, at the most.

    Returns:
        For every example that was fooled, the image that fooled; for every other one, its pixels as they were.
    """
    adversarial, remaining = pixels.clone(), remaining.clone()
    for attack in rounds:
        for rows in torch.split(remaining.nonzero()[:, 0], size):
            if not len(rows):
                continue
            images, fooled = attack(rows)
            adversarial[rows[fooled]] = images[fooled]
            remaining[rows[fooled]] = False
    return adversarial
