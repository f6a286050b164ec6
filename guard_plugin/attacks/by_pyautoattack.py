"""The part that all attacks run by pyautoattack share."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from guard_plugin.attacks.balls import Norm
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Criterion
from guard_plugin.attacks.remaining import AttackInRounds, Examples, Round
from guard_plugin.errors import UnusableInput
from guard_plugin.optional import require

__all__ = ["RunByPyAutoAttack", "TowardsTopClasses"]

_LIBRARY_NORMS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class RunByPyAutoAttack(AttackInRounds):
    """An attack whose rounds are runs of pyautoattack.

    A run calls ``attack_single_run`` of pyautoattack, because ``perturb`` draws one random start for a whole batch.

    Args:
        steps: Iterations of a run, >= 1.

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    library_class: ClassVar[tuple[str, str]]
    """The module of pyautoattack that has the attack, and its class there."""
    library_options: ClassVar[Mapping[str, Any]] = {}
    """Arguments of that class beside the number of iterations, the norm and eps."""

    steps: int = 100

    def check_available(self) -> None:
        """Refuse the attack if pyautoattack is not installed."""
        self._library_class()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise UnusableInput(f"expected {self.family} with steps >= 1, got {self.steps}")

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        # This refuses a model that no gradient passes through; pyautoattack would fail with an error of torch's.
        classifier.gradient(pixels[:1], Criterion(labels[:1]).cross_entropy())
        return super()._perturb(classifier, pixels, labels, indices)

    def _rounds(self, classifier: Classifier, num_classes: int) -> Iterable[Round]:
        library = self._library_class()(
            classifier, n_iter=self.steps, norm=_LIBRARY_NORMS[self.norm], eps=self.eps.value, **self.library_options
        )
        return [partial(self._run, library, classifier, rank) for rank in self._ranks(num_classes)]

    def _library_class(self) -> Any:
        module, name = self.library_class
        return getattr(require(f"pyautoattack.{module}", needed_by=f"attack {self.family}"), name)

    def _ranks(self, num_classes: int) -> Sequence[int]:
        """Return the number of each run: 0 for an untargeted run, else the rank of the class that it aims at."""
        return (0,)

    @abstractmethod
    def _run(self, library: Any, classifier: Classifier, rank: int, examples: Examples) -> tuple[Tensor, Tensor]:
        """Run pyautoattack's attack once, as a round."""


@dataclass(frozen=True)
class TowardsTopClasses(RunByPyAutoAttack):
    """An attack with one run towards each of the wrong classes that the model finds likeliest, the likeliest first.

    Args:
        target_classes: How many classes to aim at, >= 1; all wrong classes where there are fewer.
    """

    target_classes: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_classes < 1:
            raise UnusableInput(f"expected {self.family} with target_classes >= 1, got {self.target_classes}")

    def _ranks(self, num_classes: int) -> Sequence[int]:
        return range(2, 2 + min(self.target_classes, num_classes - 1))
