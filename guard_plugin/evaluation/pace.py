"""How many examples a round of a measurement takes, so that records are written about twice a minute.

A benchmark that is killed every few minutes must advance, and no outcome depends on where rounds end. What a round
costs is measured: it may be mostly latency (on a GPU, eight examples take as long as five hundred) or arithmetic.
The least round is one pass, which a smaller one would fill up: it may take minutes where an attack is slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from guard_plugin.attacks.classifier import PASS_UNIT

__all__ = ["Pace", "Paces"]

_SECONDS = 30.0  # that a round should take at most
_GROWTH = 4  # of a round over the last one, at most: examples differ in what they cost
_PASSES = 1500  # that an attack is taken to cost per example, before it was ever run


class Pace:
    """The size of the next round of one kind of work.

    Args:
        first: Examples in the first round, as far as ``most`` allows.
        most: Examples in any round at most, >= ``PASS_UNIT``.
    """

    def __init__(self, first: float, most: int) -> None:
        self._most = most
        self._last = 0, 0.0  # examples and seconds of the last round
        self._marginal = math.inf
        self.examples = self._allowed(first)

    def took(self, examples: int, seconds: float) -> None:
        """Note what a round took, and choose the next one's size."""
        before, seconds_before = self._last
        if examples != before:
            self._marginal = max(0.0, (seconds - seconds_before) / (examples - before))
        self._last = examples, seconds
        left = _SECONDS - (seconds - self._marginal * examples)
        fits = left / self._marginal if self._marginal > 0 else math.copysign(math.inf, left)
        if not before and seconds <= _SECONDS:
            fits = max(fits, 2.0 * examples)  # shows how much of the first round was overhead
        self.examples = self._allowed(min(fits, _GROWTH * max(examples, self.examples)))

    def _allowed(self, wanted: float) -> int:
        """Return a power of two times ``PASS_UNIT``, so that rounds rarely differ between runs."""
        size = PASS_UNIT
        while 2 * size <= min(wanted, self._most):
            size *= 2
        return size


@dataclass
class Paces:
    """The paces of a benchmark's columns, which its networks share: they are of one architecture.

    Args:
        pass_seconds: What a forward pass takes per example, once that is known.
    """

    pass_seconds: float | None = None
    _of: dict[str, Pace] = field(default_factory=dict)

    def of(self, column: str, most: int) -> Pace:
        """Return the pace of a column, of which a round has ``most`` examples at most."""
        if column not in self._of:
            known = self.pass_seconds is not None
            first = _SECONDS / (_PASSES * max(self.pass_seconds or 0.0, 1e-9)) if known else PASS_UNIT
            self._of[column] = Pace(first, most)
        return self._of[column]
