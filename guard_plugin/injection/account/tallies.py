"""What the ledger adds up over the guarded loss calls: ways taken, and values, kept on their device."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["PathCounts", "PenaltyValues", "Shares"]

# Of the loss: a run with less of a penalty is nearly a plain run (docs/measurements.md).
_NEGLIGIBLE = 1e-3

# A median of this many values, evenly spread over a run, is that of all of them to a few percent of their rank.
_KEPT = 1024


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
class Shares:
    """What part of the host's loss the penalty was, at up to 1,024 guarded loss calls, evenly spread over the run.

    Penalty and loss are kept on their device, so that noting them never waits for a GPU, and in one tensor: small ones
    that live on would keep apart the memory that training frees.
    """

    count: int = 0
    every: int = 1
    used: int = 0
    _noted: Tensor | None = None  # rows of penalty and loss; the last row is the last call's

    def note(self, penalty: Tensor, loss: Tensor) -> None:
        """Note one guarded loss call's penalty and loss, both scalars."""
        if self._noted is None:
            self._noted = torch.zeros(_KEPT + 1, 2, dtype=torch.float64, device=penalty.device)
        self._noted[-1, 0].copy_(penalty.detach(), non_blocking=True)
        self._noted[-1, 1].copy_(loss.detach(), non_blocking=True)
        if self.count % self.every == 0:
            self._keep(self._noted[-1])
        self.count += 1

    def _keep(self, row: Tensor) -> None:
        noted = self._table()
        noted[self.used].copy_(row)
        self.used += 1
        if self.used == _KEPT:
            noted[: _KEPT // 2] = noted[0:_KEPT:2].clone()
            self.used, self.every = _KEPT // 2, 2 * self.every

    def _table(self) -> Tensor:
        if self._noted is None:
            self._noted = torch.zeros(_KEPT + 1, 2, dtype=torch.float64)
        return self._noted

    def to_json(self) -> dict[str, float | None]:
        """Return the first, the median and the last; null where not finite or none."""
        if not self.count:
            return {"first": None, "median": None, "last": None}
        shares = [_share(*row) for row in self._table().tolist()]
        finite = [share for share in shares[: self.used] if share is not None]
        return {"first": shares[0], "median": statistics.median(finite) if finite else None, "last": shares[-1]}

    def counts(self) -> dict[str, Any]:
        """Return all that another process needs to add these shares to its own."""
        rows = self._table()[[*range(self.used), -1]].tolist() if self.count else []
        return {"rows": rows, "count": self.count, "every": self.every}

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add the shares of another process, which came later, at the wider of both spacings."""
        if not counts["count"]:
            return
        rows = torch.tensor(counts["rows"], dtype=torch.float64)
        own, theirs, last = self._table()[: self.used].clone(), rows[:-1], rows[-1]
        calls = self.count + int(counts["every"]) * torch.arange(len(theirs))  # whose rows these are, of both processes
        every = max(self.every, int(counts["every"]))
        while True:
            kept = torch.cat([own[:: every // self.every].cpu(), theirs[calls % every < int(counts["every"])]])
            if len(kept) < _KEPT:
                break
            every *= 2
        self.used, self.every = len(kept), every
        self._table()[: self.used] = kept
        self._table()[-1].copy_(last)
        self.count += int(counts["count"])


@dataclass
class PenaltyValues:
    """The penalty's values over a run, and the losses', kept on their device: noting one never waits for a GPU."""

    first: Tensor | float | None = None
    last: Tensor | float | None = None
    shares: Shares = field(default_factory=Shares)
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
        loss = loss.detach().to(device).double().mean()
        self._losses = self._losses + loss
        self.shares.note(here, loss)
        self._nonzero = self._nonzero + (here != 0).long()
        self._nonfinite = self._nonfinite + (~torch.isfinite(here)).long()
        self._count += 1

    def why_nothing_changed(self) -> str:
        """Say that the penalty was always 0; empty where it was not, or where there was none."""
        if not self._count or int(self._nonzero):
            return ""
        return (
            "the penalty was 0 in every guarded loss call: it changed nothing; look at h (is the step too small?) and "
            "at the network (does it round its input?)"
        )

    def warning(self) -> str:
        """Say that the penalty did not act: it was always 0, or negligible beside the loss; empty where it did."""
        nothing = self.why_nothing_changed()
        if nothing or not self._count:
            return nothing
        share = self.shares.to_json()["median"]
        if share is not None and share < _NEGLIGIBLE:
            return (
                f"the penalty was {100 * share:.2g} % of the loss (median), below {100 * _NEGLIGIBLE:g} %: this was "
                f"nearly a plain run; raise strength or h"
            )
        return ""

    def in_words(self) -> str:
        """The mean, and the part of the loss that the penalty was, for the ledger's line; empty where there is none."""
        mean = _finite(self._sum / self._count if self._count else None)
        share = {when: found for when, found in self.shares.to_json().items() if found is not None}
        of = ", ".join(f"{100 * found:.2g} % {when}" for when, found in share.items())
        return "" if mean is None else f"; mean penalty {mean:.4g}{f' (of the loss: {of})' if of else ''}"

    def to_json(self) -> dict[str, Any]:
        """Return the values, the mean loss and the penalty's shares of it, null where not finite or none."""
        return {
            "first": _finite(self.first),
            "mean": _finite(self._sum / self._count if self._count else None),
            "last": _finite(self.last),
            "loss_mean": _finite(self._losses / self._count if self._count else None),
            "nonfinite": self.nonfinite,
            "share": self.shares.to_json(),
        }

    def counts(self) -> dict[str, Any]:
        """Return all that another process needs to add these values to its own."""
        values = {name: value for name, value in vars(self).items() if name != "shares"}
        return {
            **{name: None if value is None else float(value) for name, value in values.items()},
            "shares": self.shares.counts(),
        }

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add the values of another process, which came later."""
        self.first = counts["first"] if self.first is None else self.first
        self.last = self.last if counts["last"] is None else counts["last"]
        for name in ("_count", "_nonzero", "_nonfinite"):
            setattr(self, name, getattr(self, name) + int(counts[name]))
        for name in ("_sum", "_losses"):
            setattr(self, name, getattr(self, name) + counts[name])
        self.shares.add(counts["shares"])


def _share(penalty: float, loss: float) -> float | None:
    """Return the penalty's part of the loss, in absolute values; None where there is none, or it is not finite."""
    return _finite(abs(penalty / loss)) if loss else None


def _finite(value: Tensor | float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
