"""The base of all adversarial training: where examples may lie, the search for them, and the passes that train."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy
import torch
from torch import Tensor, nn

from guard_plugin.penalties.base import LossFunction, Penalty
from guard_plugin.penalties.checks import check_batch, check_count, check_number, check_numbers
from guard_plugin.penalties.graph import gradient_for_batch
from guard_plugin.penalties.passes import outputs_of
from guard_plugin.penalties.per_example import Losses, full_precision
from guard_plugin.penalties.undisturbed import undisturbed, without_autocast
from guard_plugin.spaces import Normalization
from guard_plugin.versions import keyword_dataclass

__all__ = ["Adversarial", "Ball", "ascend"]

AdversarialT = TypeVar("AdversarialT", bound="Adversarial")


@dataclass(frozen=True)
class Ball:
    """The Linf balls around a batch, from ``lower`` to ``upper``; ``pixel`` is one unit of eps.

    All of them have the batch's shape and are in the network's input space.
    """

    centre: Tensor
    pixel: Tensor
    lower: Tensor
    upper: Tensor


@keyword_dataclass
class Adversarial(Penalty):
    """A term on adversarial examples, in the Linf balls of radius eps around the host's batch.

    The search's passes are :func:`guard_plugin.penalties.undisturbed`: they have evaluation behaviour and leave no
    trace. The passes on the examples that it found train the network: see :meth:`_training_pass`.

    Args:
        eps: The radius: in pixels of images in [0, 1] if ``mean`` and ``std`` are given, which then also keep the
            examples in that range; else in the units of the network's input, and nothing is clipped.
        eps_ramp: Over how many guarded loss calls eps rises to its value.
        mean: What the host subtracts from its pixels, one number per channel.
        std: What the host then divides them by.
        seed: The seed of the search's and the training passes' random numbers; the host's random streams are not used.
    """

    eps: float
    eps_ramp: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("eps", self.eps)
        check_count("seed", self.seed, least=0, of="the search's random stream")
        check_numbers("mean", self.mean)
        check_numbers("std", self.std)
        Normalization(tuple(self.mean), tuple(self.std))

    def at(self: AdversarialT, step: int) -> AdversarialT:
        """Return the penalty as it is after ``step`` guarded loss calls, with random numbers of its own for each."""
        (seed,) = numpy.random.SeedSequence([self.seed, step]).generate_state(1)
        return replace(super().at(step), seed=int(seed))

    def __call__(self, network: nn.Module, inputs: Tensor, targets: Tensor, *, loss_fn: LossFunction) -> Tensor:
        """Search adversarial examples of one batch, and compute the term on them."""
        check_batch(network, inputs, targets)
        inputs, targets = full_precision(inputs.detach(), targets, network)
        losses = Losses(network, targets, loss_fn)
        random = torch.Generator(inputs.device).manual_seed(self.seed)
        with undisturbed(network, inputs.device), torch.enable_grad():
            found = self._search(losses, self._ball_around(inputs), random)
        return self.strength * self._term(losses, inputs, found)

    def _ball_around(self, centre: Tensor) -> Ball:
        """Make the balls around a batch: in pixels where mean and std are given, else in the input's units.

        With mean and std they are cut to pixels in [0, 1]. A value that the host itself put outside that range (by
        augmentation) may stay where it is, and go no further out.
        """
        if not self.mean:
            return Ball(centre, torch.ones_like(centre), centre - self.eps, centre + self.eps)
        space = Normalization(tuple(self.mean), tuple(self.std))
        black, white = space.to_input(torch.zeros_like(centre)), space.to_input(torch.ones_like(centre))
        pixel = white - black
        lower = torch.maximum(centre - self.eps * pixel, torch.minimum(black, centre))
        upper = torch.minimum(centre + self.eps * pixel, torch.maximum(white, centre))
        return Ball(centre, pixel, lower, upper)

    def _training_pass(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Make a pass that trains, as the host's own did: BatchNorm normalises by this batch, its statistics run on.

        That is what the methods' authors do. Each module keeps the behaviour that the host gave it (a layer frozen in
        eval stays so). Dropout acts, with a mask of its own, the same in each pass on this batch; the host's random
        streams are afterwards what they were. Autocast is off.
        """
        # The passes get a seed of their own: the search's generator draws from the penalty's seed itself.
        (seed,) = numpy.random.SeedSequence(self.seed).generate_state(1)
        with without_autocast(inputs.device):
            return outputs_of(network, inputs, seed=int(seed))

    @abstractmethod
    def _search(self, losses: Losses, ball: Ball, random: torch.Generator) -> Tensor:
        """Return adversarial examples, in the ball."""

    @abstractmethod
    def _term(self, losses: Losses, inputs: Tensor, found: Tensor) -> Tensor:
        """Compute the term, without its weight, on the examples that were found for the inputs."""


def ascend(objective: Callable[[Tensor], Tensor], start: Tensor, ball: Ball, *, steps: int, step_size: float) -> Tensor:
    """Search the balls for points of a greater objective, by steps along the gradient's sign.

    The objective maps n points to n values, each of which depends on its own point only. The search begins at
    ``start``, shape (n, ...); ``step_size`` is in the units of eps.
    """
    points = start.detach().clamp(ball.lower, ball.upper)
    for _ in range(steps):
        points.requires_grad_()
        gradient = gradient_for_batch(objective(points).sum(), points)
        moved = points.detach() + step_size * ball.pixel * gradient.sign()
        points = moved.clamp(ball.lower, ball.upper)
    return points
