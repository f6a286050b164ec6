"""Attacks that go on, round after round, with the examples that still stand."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = ["Round", "attack_standing"]

Round = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes rows of the examples, shape (m,); gives their images after the attack, and whether each fools."""


def attack_standing(pixels: Tensor, standing: Tensor, rounds: Iterable[Round], *, size: int) -> Tensor:
    """Run the rounds one after the other, each on the examples that withstood the earlier ones.

    Args:
        pixels: Shape (n, ...).
        standing: Shape (n,), bool: the examples to attack.
        rounds: What to run.
        size: Most examples that a round gets at once.

    Returns:
        For every example that was fooled, the image that did it; the others as they were.
    """
    adversarial, standing = pixels.clone(), standing.clone()
    for attack in rounds:
        for rows in torch.split(standing.nonzero()[:, 0], size):
            if not len(rows):
                continue
            images, fooled = attack(rows)
            adversarial[rows[fooled]] = images[fooled]
            standing[rows[fooled]] = False
    return adversarial
