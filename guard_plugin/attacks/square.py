"""The Square attack."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.balls import Norm
from guard_plugin.attacks.base import Attack, parse_count
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Criterion, PerExample
from guard_plugin.attacks.randomness import words_per_example
from guard_plugin.attacks.square_moves import L2Moves, LinfMoves
from guard_plugin.errors import UnusableInput

__all__ = ["Square"]

_BLOCK = 32
"""The number of queries whose random words are drawn at once."""


@dataclass(frozen=True)
class Square(Attack):
    """Random search by squares of shrinking size, without gradients (Andriushchenko et al., 2020).

    The search is that of AutoAttack, which has 5000 queries; "square1000" has 1000. The size of the square depends on
    the number of the query alone, so fewer queries are the beginning of more. As in AutoAttack, the start is one query
    more.

    Two things differ from AutoAttack. Each example has squares and colours of its own, from (seed, index, query), so
    its outcome does not depend on the other examples, and the remaining examples of many batches can share passes. And
    an example is finished when the model chooses another class, not when two classes tie.

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
        return cls(queries=parse_count(cls.family, suffix) if suffix else cls.queries, **common)

    @property
    def base_name(self) -> str:
        """The family, with the number of queries where it is not the usual one."""
        return self.family if self.queries == type(self).queries else f"{self.family}{self.queries}"

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        channels, height, width = pixels.shape[1:]
        kind: type[LinfMoves | L2Moves] = LinfMoves if self.norm == "linf" else L2Moves
        moves = kind((channels, height, width), self.eps.value, self.p_init)
        # The start has time 0 of the random words, query t has time t + 1.
        indices = indices.to(pixels.device)
        words = words_per_example(moves.words_to_start, seed=self.seed, indices=indices, times=range(1))
        start = moves.start(pixels, words[:, 0])
        places = torch.arange(len(pixels), device=pixels.device)
        margins = pixels.new_full((len(pixels),), torch.inf)
        result = start.clone()
        active = _Active(places, pixels, start, margins, Criterion(labels), indices, words)
        active = active.after(start, classifier.logits(start), result)
        for query in range(self.queries):
            if not len(active.places):
                break
            if query % _BLOCK == 0:
                times = range(query + 1, query + 1 + _BLOCK)
                words = words_per_example(moves.words_per_query, seed=self.seed, indices=active.indices, times=times)
                active = replace(active, words=words)
            images = moves.propose(query, active.pixels, active.best, active.words[:, query % _BLOCK])
            active = active.after(images, classifier.logits(images), result)
        result[active.places] = active.best
        return result


@dataclass(frozen=True)
class _Active(PerExample):
    """The examples that are not fooled yet."""

    places: Tensor
    pixels: Tensor
    best: Tensor
    margins: Tensor
    criterion: Criterion
    indices: Tensor
    words: Tensor

    def after(self, images: Tensor, logits: Tensor, result: Tensor) -> "_Active":
        """Keep images that come closer to fooling; write those that fool to result, and leave out their examples."""
        margins, reached = self.criterion.margin(logits), self.criterion.reached(logits)
        better = (margins < self.margins) | reached
        best = torch.where(better.view(-1, 1, 1, 1), images, self.best)
        active = replace(self, best=best, margins=torch.where(better, margins, self.margins))
        if not bool(reached.any()):
            return active
        result[self.places[reached]] = best[reached]
        return active.of(~reached)
