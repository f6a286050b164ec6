"""TRADES: the host's loss, and beside it how far an adversary can move the network's prediction."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from guard_plugin.penalties.adversarial.base import Adversarial, Ball, ascend
from guard_plugin.penalties.checks import check_count, check_number
from guard_plugin.penalties.passes import outputs_of
from guard_plugin.penalties.per_example import Losses
from guard_plugin.versions import keyword_dataclass

__all__ = ["Trades"]

_START = 0.001  # the start's distance from the example, as in the authors' code


@keyword_dataclass
class Trades(Adversarial):
    """``strength * mean_i KL(p(x_i) || p(x_i'))``: Zhang et al., ICML 2019; strength is their beta, or 1 / lambda.

    x' is searched by steps that increase that divergence, from x + 0.001 * N(0, 1), and gradients flow through both
    predictions, as in the authors' code. The defaults are theirs for CIFAR-10 (with eps 0.031: steps of 0.007). The
    divergence of an example that the host's criterion ignores counts as 0.

    Args:
        steps: How many steps the search takes, >= 1.
        rel_step_size: The length of a step, in parts of eps.
    """

    name: ClassVar[str] = "trades"
    on_predictions: ClassVar[bool] = True
    strength: float = 6.0
    steps: int = 10
    rel_step_size: float = 0.007 / 0.031

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("steps", self.steps, least=1, of="steps")
        check_number("rel_step_size", self.rel_step_size)

    def _search(self, losses: Losses, ball: Ball, random: torch.Generator) -> Tensor:
        network, centre = losses.network, ball.centre
        with torch.no_grad():
            clean = _log_probabilities(outputs_of(network, centre))
        noise = torch.randn(centre.shape, generator=random, dtype=centre.dtype, device=centre.device)
        return ascend(
            lambda points: _divergences(clean, _log_probabilities(outputs_of(network, points))),
            centre + _START * ball.pixel * noise,
            ball,
            steps=self.steps,
            step_size=self.rel_step_size * self.eps,
        )

    def _term(self, losses: Losses, inputs: Tensor, found: Tensor) -> Tensor:
        moved = _log_probabilities(self._training_pass(losses.network, found))
        clean = _log_probabilities(self._training_pass(losses.network, inputs))
        # The host's criterion ignores the examples that have no loss even if nothing is known of them.
        ignored = losses.of_outputs(_log_probabilities(torch.zeros_like(moved))) == 0
        return _divergences(clean, moved).masked_fill(ignored, 0).mean()


def _log_probabilities(outputs: Tensor) -> Tensor:
    # Of log-probabilities, which NLLLoss is given, this is the identity.
    return functional.log_softmax(outputs, dim=1)


def _divergences(clean: Tensor, moved: Tensor) -> Tensor:
    """KL(clean || moved) per example, averaged over further dimensions (dense prediction)."""
    divergences = functional.kl_div(moved, clean, reduction="none", log_target=True).sum(dim=1)
    return divergences if divergences.dim() == 1 else divergences.flatten(1).mean(dim=1)
