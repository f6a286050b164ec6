"""What an attack is after, for each example."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from guard_plugin.attacks.classifier import Loss

__all__ = ["Criterion", "Goal", "PerExample", "Unfinished", "is_time_to_pack", "where_rows"]

_PerExample = TypeVar("_PerExample", bound="PerExample")
_Unfinished = TypeVar("_Unfinished", bound="Unfinished")

_PACKED_EVERY = 4
"""The number of steps after which the examples that are left are packed together."""


@dataclass(frozen=True)
class PerExample:
    """Base of frozen dataclasses in which every field is None or has a row for each example."""

    def of(self: _PerExample, rows: Tensor) -> _PerExample:
        """Return the same for some of the examples, chosen by place or by mask."""
        return replace(self, **{field.name: _rows(getattr(self, field.name), rows) for field in fields(self)})


def _rows(value: Any, rows: Tensor) -> Any:
    if isinstance(value, tuple):
        return tuple(_rows(one, rows) for one in value)
    if isinstance(value, PerExample):
        return value.of(rows)
    return None if value is None else value[rows]


@dataclass(frozen=True)
class Unfinished(PerExample):
    """Base of the examples that an attack still passes. A few are finished: they stand still until they are left out.

    Which rows are left is known to the device alone, and a GPU runs empty while its host waits for it. So a step
    changes what is ``live`` with masks, and only ``packed`` asks the device.

    Args:
        places: Shape (n,), int64: the examples' places among all examples.
        live: Shape (n,), bool: whether the example is unfinished.
    """

    places: Tensor
    live: Tensor

    def packed(self: _Unfinished) -> _Unfinished:
        """Return the live examples."""
        rows = self.live.nonzero()[:, 0]
        return self if len(rows) == len(self.live) else self.of(rows)


def where_rows(rows: Tensor, images: Tensor, others: Tensor) -> Tensor:
    """Return, of each example in the mask ``rows``, shape (n,), its image, and of the rest the other one."""
    return torch.where(rows.view(-1, 1, 1, 1), images, others)


def is_time_to_pack(step: int, steps: int) -> bool:
    """Return whether to pack after a step, counted from 0."""
    return step < steps - 1 and step % _PACKED_EVERY == _PACKED_EVERY - 1


@dataclass(frozen=True)
class Criterion(PerExample):
    """Misclassification, or the choice of a target class.

    Args:
        labels: Shape (n,), int64: the true classes.
        targets: Shape (n,), int64: the target classes; None in an untargeted attack.
    """

    labels: Tensor
    targets: Tensor | None = None

    def reached(self, logits: Tensor) -> Tensor:
        """Return whether the model's choice meets the criterion, shape (n,), bool."""
        choice = logits.argmax(1)
        return choice != self.labels if self.targets is None else choice == self.targets

    def cross_entropy(self) -> Loss:
        """Return the loss to increase: the cross entropy of the true class, or minus that of the target class."""
        classes, sign = (self.labels, 1) if self.targets is None else (self.targets, -1)
        return lambda logits, rows: sign * F.cross_entropy(logits, classes[rows], reduction="none")

    def margin(self, logits: Tensor) -> Tensor:
        """Return how far the model is from meeting the criterion, shape (n,): below 0 where it meets the criterion.

        Untargeted, the margin is the true class's logit minus the highest other logit; targeted, it is the highest
        other logit minus the target's (Carlini and Wagner, 2017, objective f6).
        """
        classes = self.labels if self.targets is None else self.targets
        own = logits.gather(1, classes[:, None])[:, 0]
        others = logits.scatter(1, classes[:, None], -torch.inf).amax(1)
        return own - others if self.targets is None else others - own


Goal = Criterion
"""The former name of ``Criterion``, for plugins that import it."""
