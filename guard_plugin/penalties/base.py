"""What every penalty is: settings, and a scalar for one batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from guard_plugin.penalties.checks import check_strength

__all__ = ["LossFunction", "Penalty"]

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps a network's output, shape (n, ...), and targets, length n, to n losses, shape (n,)."""


@dataclass(frozen=True, kw_only=True)
class Penalty(ABC):
    """A term that is added to each loss call on real data.

    A subclass is a frozen dataclass with a ``name``. Its fields are its settings: ``guard run`` fills those that it
    has from the command line, and the ledger records all of them.

    Args:
        strength: The weight of the term ("lambda"), >= 0. At 0 nothing is computed and the run is the plain run.
    """

    name: ClassVar[str]
    strength: float

    def __post_init__(self) -> None:
        check_strength(self.strength)

    @abstractmethod
    def __call__(self, network: nn.Module, inputs: Tensor, targets: Tensor, *, loss_fn: LossFunction) -> Tensor:
        """Compute the term for one batch, its weight included.

        Args:
            network: The network that the host trains. It must be left exactly as it was found: see
                :func:`guard_plugin.penalties.undisturbed`.
            inputs: The batch that the host gave the network, shape (n, ...).
            targets: Its targets, length n: class indices or class probabilities.
            loss_fn: The host's own criterion, per example.

        Returns:
            A scalar, differentiable with respect to the network's parameters.
        """

    def at(self, step: int) -> "Penalty":
        """Return the penalty as it is after ``step`` guarded loss calls: itself, unless its settings rise."""
        return self

    def settings(self) -> dict[str, Any]:
        """The name and every setting, as the ledger writes them."""
        return {"name": self.name, **asdict(self)}
