"""What the ledger adds up over the guarded loss calls: ways taken, and values, kept on their device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["PathCounts", "PenaltyValues"]

# Of the loss: a penalty below it does not act.
_NEGLIGIBLE = 1e-6


@dataclass
class PathCounts:
    """How many loss calls took each way to compute the penalty's gradient, and why they took no faster one.

    ``memory`` is the user's option; ``taken`` counts, per way, the reasons against a faster one ("" for none).
    """

    memory: str = "normal"
    taken: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, path: str, reason: str) -> None:
        """Note the way that one loss call takes, and why no faster one, if there is one."""
        self.taken.setdefault(path, Counter())[reason] += 1

    def to_json(self) -> dict[str, Any]:
        """Return the ways taken, as the ledger writes them."""
        return {
            path: {"calls": sum(why.values()), "because": {reason: n for reason, n in why.items() if reason}}
            for path, why in self.taken.items()
        }


@dataclass
class PenaltyValues:
    """The penalty's values over a run, and the losses', kept on their device: noting one never waits for a GPU."""

    first: Tensor | float | None = None
    last: Tensor | float | None = None
    _count: int = 0
    _sum: Tensor | float = 0.0
    _losses: Tensor | float = 0.0
    _nonzero: Tensor | int = 0
    _nonfinite: Tensor | int = 0

    @property
    def nonfinite(self) -> int:
        """How many were not finite."""
        return int(self._nonfinite)

    def note(self, value: Tensor, loss: Tensor) -> None:
        """Note the penalty of one guarded loss call, and the host's own loss."""
        value = value.detach().clone()
        self.first = value if self.first is None else self.first
        self.last = value
        # Where the first one is: a host may train on several devices.
        device = self._sum.device if isinstance(self._sum, Tensor) else value.device
        here = value.to(device)
        self._sum = self._sum + here.double()
        self._losses = self._losses + loss.detach().to(device).double().mean()
        self._nonzero = self._nonzero + (here != 0).long()
        self._nonfinite = self._nonfinite + (~torch.isfinite(here)).long()
        self._count += 1

    def warning(self) -> str:
        """Say that the penalty did not act: it was always 0, or negligible beside the loss; empty where it did."""
        if not self._count:
            return ""
        if not int(self._nonzero):
            return "the penalty was 0 in every guarded loss call: it changed nothing; look at h and at the network"
        penalty, loss = float(self._sum) / self._count, abs(float(self._losses) / self._count)
        if abs(penalty) < _NEGLIGIBLE * loss < math.inf:
            return (
                f"the mean penalty, {penalty:.2g}, is below a millionth of the mean loss, {loss:.4g}: it changed next "
                f"to nothing; raise strength or h"
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return first, mean, last, the mean loss (null where not finite or none) and how many were not finite."""
        return {
            "first": _finite(self.first),
            "mean": _finite(self._sum / self._count if self._count else None),
            "last": _finite(self.last),
            "loss_mean": _finite(self._losses / self._count if self._count else None),
            "nonfinite": self.nonfinite,
        }

    def counts(self) -> dict[str, float | None]:
        """Return all that another process needs to add these values to its own."""
        return {name: None if value is None else float(value) for name, value in vars(self).items()}

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add the values of another process, which came later."""
        self.first = counts["first"] if self.first is None else self.first
        self.last = self.last if counts["last"] is None else counts["last"]
        for name in ("_count", "_nonzero", "_nonfinite"):
            setattr(self, name, getattr(self, name) + int(counts[name]))
        for name in ("_sum", "_losses"):
            setattr(self, name, getattr(self, name) + counts[name])


def _finite(value: Tensor | float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
