"""What every penalty is: settings, and a scalar for one batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

from torch import Tensor, nn

from guard_plugin.errors import PluginError
from guard_plugin.penalties.checks import check_count, check_share, check_strength
from guard_plugin.penalties.fast.precomputed import Known
from guard_plugin.penalties.fast.second_order import SecondOrder

__all__ = ["Combination", "HostPass", "LossFunction", "Path", "Penalty"]

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps a network's output, shape (n, ...), and targets, length n, to n losses, shape (n,)."""

Combination = Literal["added", "replaces"]

Path = Literal["shared", "separate", "reference"]
"""How a penalty's gradient comes about: "reference", by torch's own graph of passes of the penalty's own; "separate",
in such passes too, but at once; "shared", at once, with the host's own forward pass as one of them."""

PenaltyT = TypeVar("PenaltyT", bound="Penalty")

_RAMP = "_ramp"


@dataclass(frozen=True)
class HostPass:
    """The host's own forward pass, and what it made of it.

    Args:
        batch: The leaf tensor that the network's input was a copy of; it requires grad.
        operations: Those that the pass was made with, where the penalty differentiates twice.
        output: What the network returned.
        loss: What the host's criterion made of it.
    """

    batch: Tensor
    operations: SecondOrder
    output: Tensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class Penalty(ABC):
    """A term that each loss call on real data gets.

    A subclass is a frozen dataclass with a ``name``. Its fields are its settings: ``guard run`` fills those that it
    has from the command line, and the ledger records all of them. A setting NAME with a companion field NAME_ramp
    rises to its value, evenly, over that many guarded loss calls; 0: it has it from the first.

    ``combination`` says what becomes of the host's own loss: "added" to it, or "replaces" the part ``strength`` of it,
    so that the host gets ``(1 - strength) * loss + term``, with ``strength`` <= 1. ``paths`` are those that it has,
    best first: "separate" needs :meth:`in_parts`, "shared" needs :meth:`on_host` and :attr:`differentiates_twice` too.

    Args:
        strength: The weight of the term ("lambda"), >= 0. At 0 nothing is computed and the run is the plain run.
        strength_ramp: Over how many guarded loss calls it rises to its value.
    """

    name: ClassVar[str]
    combination: ClassVar[Combination] = "added"
    paths: ClassVar[tuple[Path, ...]] = ("reference",)
    strength: float
    strength_ramp: int = 0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if self.combination not in get_args(Combination):
            raise PluginError(
                f"penalty {self.name!r}: expected combination to be one of {', '.join(get_args(Combination))}, "
                f"got {self.combination!r}"
            )
        if self.combination == "replaces":
            check_share(self.name, self.strength)
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

    @property
    def differentiates_twice(self) -> bool:
        """Whether its gradient is one of input gradients."""
        raise NotImplementedError

    def in_parts(
        self, network: nn.Module, inputs: Tensor, targets: Tensor, *, loss_fn: LossFunction, size: int, sparing: bool
    ) -> Known:
        """Compute the term and its gradient at once, at most ``size`` examples at a time.

        ``sparing``: in as little memory as can be, where that takes more passes.
        """
        raise NotImplementedError

    def on_host(
        self, host: HostPass, network: nn.Module, targets: Tensor, *, loss_fn: LossFunction, size: int
    ) -> tuple[Known, Tensor] | None:
        """Compute the host's loss and the term, and their gradient, at once, and the term alone.

        Returns None where the host's loss is of another kind than the host's pass can serve.
        """
        raise NotImplementedError

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
        return {name: name + _RAMP for name in names if name + _RAMP in names}
