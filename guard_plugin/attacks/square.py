"""The Square attack."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Goal
from guard_plugin.attacks.norms import Norm
from guard_plugin.attacks.pgd import steps_from
from guard_plugin.attacks.philox import words_per_example
from guard_plugin.attacks.square_moves import L2Moves, LinfMoves, Moves
from guard_plugin.errors import UnusableInput

__all__ = ["Square"]

_BLOCK = 32
"""Queries whose random words are made at once."""


@dataclass(frozen=True)
class Square(Attack):
    """Random search by squares of shrinking size, without gradients (Andriushchenko et al., 2020).

    What AutoAttack runs, with 5000 queries; "square1000" has 1000. The size of the square hangs on the number of the
    query alone, so fewer queries are the beginning of more. As there, the start is one query more.

    Unlike there, each example has squares and colours of its own, from (seed, index, query); so its outcome does not
    hang on the others, and those that are left of many batches can share passes. And an example is finished where the
    model's choice is another class, not where two classes tie.

    Args:
        queries: Number of squares to try, >= 1.
        p_init: Share of the image that the first square covers, in (0, 1].

    Raises:
        UnusableInput: If a parameter is out of range.
    """

    family: ClassVar[str] = "square"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    whitebox: ClassVar[bool] = False
    constants: ClassVar[Mapping[str, Any]] = {"loss": "margin", "restarts": 1, "rescaled_schedule": False}

    queries: int = 5000
    p_init: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1 or not 0 < self.p_init <= 1:
            raise UnusableInput(
                f"expected square with queries >= 1 and 0 < p_init <= 1, "
                f"got queries={self.queries}, p_init={self.p_init}"
            )

    @classmethod
    def from_spec(cls, suffix: str, **common: Any) -> "Square":
        """Read the number of queries from the name: "1000" in "square1000", 5000 if there is none."""
        return cls(queries=steps_from(cls.family, suffix) if suffix else cls.queries, **common)

    @property
    def base_name(self) -> str:
        """The family, with the number of queries where it is not the usual one."""
        return self.family if self.queries == type(self).queries else f"{self.family}{self.queries}"

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        channels, height, width = pixels.shape[1:]
        kind = LinfMoves if self.norm == "linf" else L2Moves
        moves = kind((channels, height, width), self.eps.value, self.p_init)
        search = _Search(classifier, moves, pixels, Goal(labels), indices.to(pixels.device), self.seed)
        for query in range(self.queries):
            search.query(query)
        return search.finish()


@dataclass(frozen=True)
class _Active:
    """The examples that are not fooled yet; every field has a row for each."""

    places: Tensor
    pixels: Tensor
    best: Tensor
    margins: Tensor
    goal: Goal
    indices: Tensor
    words: Tensor

    def of(self, rows: Tensor) -> "_Active":
        tensors = ("places", "pixels", "best", "margins", "indices", "words")
        return replace(self, goal=self.goal.of(rows), **{name: getattr(self, name)[rows] for name in tensors})


class _Search:
    """An attack on its way."""

    def __init__(
        self, classifier: Classifier, moves: Moves, pixels: Tensor, goal: Goal, indices: Tensor, seed: int
    ) -> None:
        self._classifier = classifier
        self._moves = moves
        self._seed = seed
        # The start has time 0 of the random words, query t has time t + 1.
        words = words_per_example(moves.words_to_start, seed=seed, indices=indices, times=range(1))[:, 0]
        start = moves.start(pixels, words)
        self._result = start.clone()
        places = torch.arange(len(pixels), device=pixels.device)
        margins = pixels.new_full((len(pixels),), torch.inf)
        self._active = _Active(places, pixels, start, margins, goal, indices, words)
        self._judge(start)

    def query(self, query: int) -> None:
        """Try one square with every example that is not fooled yet."""
        if not len(self._active.places):
            return
        active = self._active
        if query % _BLOCK == 0:
            times = range(query + 1, query + 1 + _BLOCK)
            words = words_per_example(self._moves.words_per_query, seed=self._seed, indices=active.indices, times=times)
            self._active = active = replace(active, words=words)
        self._judge(self._moves.propose(query, active.pixels, active.best, active.words[:, query % _BLOCK]))

    def finish(self) -> Tensor:
        """The result for every example."""
        self._result[self._active.places] = self._active.best
        return self._result

    def _judge(self, images: Tensor) -> None:
        """Keep images that come closer to fooling, and let go of examples that are fooled."""
        active = self._active
        logits = self._classifier.logits(images)
        margins, reached = active.goal.margin(logits), active.goal.reached(logits)
        better = (margins < active.margins) | reached
        best = torch.where(better.view(-1, 1, 1, 1), images, active.best)
        active = replace(active, best=best, margins=torch.where(better, margins, active.margins))
        if bool(reached.any()):
            self._result[active.places[reached]] = best[reached]
            active = active.of(~reached)
        self._active = active
