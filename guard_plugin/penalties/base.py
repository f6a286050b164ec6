"""What every penalty is: settings, and a scalar for one batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

from torch import Tensor, nn

from guard_plugin.errors import PluginError, UnusableInput
from guard_plugin.penalties.checks import check_count, check_number
from guard_plugin.versions import keyword_dataclass

__all__ = ["Combination", "LossFunction", "Penalty"]

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps a network's output, shape (n, ...), and targets, length n, to n losses, shape (n,)."""

Combination = Literal["added", "replaces"]

PenaltyT = TypeVar("PenaltyT", bound="Penalty")


@keyword_dataclass
class Penalty(ABC):
    """A term that each loss call on real data gets.

    A subclass is a frozen dataclass with a ``name``. Its fields are its settings: ``guard run`` fills them from the
    command line, and the ledger records all of them. A setting NAME with a companion field NAME_ramp rises evenly to
    its value over that many guarded loss calls; with a ramp of 0 it has its value from the first call.

    ``combination`` says what becomes of the host's own loss: the term is "added" to it, or "replaces" the part
    ``strength`` of it, so that the host gets ``(1 - strength) * loss + term``, with ``strength`` <= 1.

    A penalty ``on_predictions`` uses what a network predicts otherwise than by the criterion: its network then goes up
    to the tensor that the criterion is called on (scaled logits, a part of them), not only to what it returned. A
    subclass with a setting ``batch_statistics`` can make its passes with BatchNorm as it is in training.

    Args:
        strength: The weight of the term ("lambda"), >= 0. At 0 nothing is computed and the run is the plain run.
        strength_ramp: Over how many guarded loss calls it rises to its value.
    """

    name: ClassVar[str]
    combination: ClassVar[Combination] = "added"
    on_predictions: ClassVar[bool] = False
    strength: float
    strength_ramp: int = 0

    @property
    def batch_statistics(self) -> bool:
        """Whether BatchNorm normalises its passes by their batches, and not by running statistics."""
        return False

    def __post_init__(self) -> None:
        check_number("strength", self.strength, zero=True)
        if self.combination not in get_args(Combination):
            raise PluginError(
                f"penalty {self.name!r}: expected combination to be one of {', '.join(get_args(Combination))}, "
                f"got {self.combination!r}"
            )
        if self.combination == "replaces" and self.strength > 1:
            raise UnusableInput(
                f"expected strength between 0 and 1, as {self.name!r} replaces that part of the host's loss, "
                f"got {self.strength!r}"
            )
        for name, ramp in self._ramps().items():
            check_count(ramp, getattr(self, ramp), least=0, of="guarded loss calls")
            if self.__dataclass_fields__[name].type in (int, "int"):
                raise PluginError(
                    f"penalty {self.name!r}: expected {name}, which has a {ramp}, to be a float, found an int: a whole "
                    f"number cannot rise evenly; remove {ramp}"
                )

    @abstractmethod
    def __call__(self, network: nn.Module, inputs: Tensor, targets: Tensor, *, loss_fn: LossFunction) -> Tensor:
        """Compute the term for one batch, its weight included.

        Args:
            network: The network that the host trains. It must be left as it was found (see
                :func:`guard_plugin.penalties.undisturbed`), but for what a pass that trains does to running statistics
                where the method makes one.
            inputs: The batch that the host gave the network, shape (n, ...).
            targets: Its targets, length n: class indices or class probabilities.
            loss_fn: The host's own criterion, per example.

        Returns:
            A scalar, differentiable with respect to the network's parameters.
        """

    def at(self: PenaltyT, step: int) -> PenaltyT:
        """Return the penalty as it is after ``step`` guarded loss calls, with nothing left to rise."""
        rising = {name: ramp for name, ramp in self._ramps().items() if step < getattr(self, ramp)}
        if not rising:
            return self
        risen = {name: getattr(self, name) * (step + 1) / getattr(self, ramp) for name, ramp in rising.items()}
        return replace(self, **risen, **dict.fromkeys(self._ramps().values(), 0))

    def ramps(self) -> dict[str, int]:
        """Each setting that rises, and over how many guarded loss calls it does."""
        return {name: getattr(self, ramp) for name, ramp in self._ramps().items() if getattr(self, ramp)}

    def settings(self) -> dict[str, Any]:
        """The name, the combination and every setting, as the ledger writes them."""
        return {"name": self.name, "combination": self.combination, **asdict(self)}

    def _ramps(self) -> dict[str, str]:
        """Each setting that can rise, and the setting that tells over how many calls."""
        names = [field.name for field in fields(self)]
        return {name: f"{name}_ramp" for name in names if f"{name}_ramp" in names}
