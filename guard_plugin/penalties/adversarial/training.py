"""Adversarial training proper: the host's loss is replaced by the loss on adversarial examples."""

from typing import ClassVar

import torch
from torch import Tensor

from guard_plugin.penalties.adversarial.base import Adversarial, Ball, ascend
from guard_plugin.penalties.base import Combination
from guard_plugin.penalties.checks import check_count, check_number
from guard_plugin.penalties.per_example import Losses
from guard_plugin.versions import keyword_dataclass

__all__ = ["FastTraining", "PgdTraining"]


@keyword_dataclass
class _AdversarialTraining(Adversarial):
    """The mean loss on examples found from a uniform random start, by steps that increase the loss."""

    combination: ClassVar[Combination] = "replaces"
    strength: float = 1.0
    rel_step_size: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rel_step_size", self.rel_step_size)

    def _climb(self, losses: Losses, ball: Ball, random: torch.Generator, steps: int) -> Tensor:
        centre = ball.centre
        draws = torch.rand(centre.shape, generator=random, dtype=centre.dtype, device=centre.device)
        start = centre + (2 * draws - 1) * self.eps * ball.pixel
        return ascend(losses, start, ball, steps=steps, step_size=self.rel_step_size * self.eps)

    def _term(self, losses: Losses, inputs: Tensor, found: Tensor) -> Tensor:
        return losses.of_outputs(self._training_pass(losses.network, found)).mean()


@keyword_dataclass
class PgdTraining(_AdversarialTraining):
    """Training on PGD's examples: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018.

    The host's loss becomes ``(1 - strength) * loss + strength * mean_i l_i(x_i')``. The defaults are the paper's for
    CIFAR-10: nothing of the clean loss, 7 steps of 2/255 at eps 8/255.

    Args:
        steps: How many steps the search takes, >= 1.
        rel_step_size: The length of a step, in parts of eps.
    """

    name: ClassVar[str] = "pgd_at"
    steps: int = 7
    rel_step_size: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("steps", self.steps, least=1, of="steps")

    def _search(self, losses: Losses, ball: Ball, random: torch.Generator) -> Tensor:
        return self._climb(losses, ball, random, self.steps)


@keyword_dataclass
class FastTraining(_AdversarialTraining):
    """Training on the examples of one step from a random start: Wong et al., "Fast is better than free", 2020.

    The host's loss becomes ``(1 - strength) * loss + strength * mean_i l_i(x_i')``. The default step is the paper's,
    10/255 at eps 8/255; the result is projected onto the ball.

    Args:
        rel_step_size: The step's length, in parts of eps.
    """

    name: ClassVar[str] = "fast"
    rel_step_size: float = 1.25

    def _search(self, losses: Losses, ball: Ball, random: torch.Generator) -> Tensor:
        return self._climb(losses, ball, random, steps=1)
