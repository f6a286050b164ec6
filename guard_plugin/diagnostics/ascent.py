"""The largest loss in an L2 ball, as found by gradient ascent."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guard_plugin.attacks import uniform_per_example
from guard_plugin.diagnostics.hessian import input_gradients, norms, scaled
from guard_plugin.errors import UnusableInput
from guard_plugin.penalties.per_example import Losses, unit

__all__ = ["Ascent", "BallAttack"]

BallAttack = Callable[[Losses, Tensor, float, Tensor], Tensor]
"""Maps losses, inputs of shape (n, ...), a radius and the inputs' positions, shape (n,), to inputs in the L2 balls."""


@dataclass(frozen=True)
class Ascent:
    """Projected L2 gradient ascent on the loss, with shrinking steps, which returns the best point that it visited.

    Unlike ``guard_plugin.attacks`` it knows no pixel range: GUARD's bound is about the whole ball,
    and distilled images leave the range anyway. What it finds is a lower estimate of the largest loss.

    Args:
        steps: Gradient steps per start, >= 1; step t has the length 2 rho (1 - t / steps).
        random_starts: Starts at random points of the ball, beside the one at its centre.
        seed: The seed of the random starts; each depends on it and on its input's position only.

    Raises:
        UnusableInput: If a setting is out of range.
    """

    steps: int = 50
    random_starts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.random_starts < 0:
            raise UnusableInput(f"expected steps >= 1 and random_starts >= 0, got {self}")

    def __call__(self, losses: Losses, inputs: Tensor, rho: float, indices: Tensor) -> Tensor:
        """Return, for each input, the visited point of its ball that has the largest loss."""
        best, highest = inputs.clone(), inputs.new_full((len(inputs),), -torch.inf)
        for start in range(1 + self.random_starts):
            offset = torch.zeros_like(inputs)
            if start > 0:
                offset = rho * unit(uniform_per_example(inputs, seed=self.seed + start, indices=indices))
            for t in range(self.steps + 1):
                found, gradients = input_gradients(losses, inputs + offset)
                better = found > highest
                highest = torch.where(better, found, highest)
                best[better] = (inputs + offset)[better]
                offset = offset + 2 * rho * (1 - t / self.steps) * unit(gradients)
                lengths = norms(offset)
                offset = scaled(offset, torch.where(lengths > rho, rho / lengths, torch.ones_like(lengths)))
        return best
