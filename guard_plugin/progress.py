"""Progress of long work: a bar on a terminal, and a line a minute where standard error is a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

__all__ = ["Progress", "tracked"]

_EVERY = 60.0  # seconds between two lines of a log

T = TypeVar("T")


class Progress:
    """Shows how far some work is, while its ``with`` block runs.

    Args:
        what: The work, in words.
        total: How many units it has.
        unit: One of them.
        done: How many were done before.
        shown: Whether to show anything.
    """

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0, shown: bool = True) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._before, self._done, self._logs = done, done, shown
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(desc=what, total=total, unit=unit, initial=done, leave=False)
        self._begin = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        """Return this."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def update(self, units: int = 1) -> None:
        """Say that so many more are done."""
        self._done += units
        if self._bar is not None:
            self._bar.update(units)
        elif self._logs and time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            print(f"guard: {self._line(self._told - self._begin)}", file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        line = f"{self._what}: {self._done} of {self._total} {self._unit}s after {_duration(seconds)}"
        now = self._done - self._before
        return f"{line}, about {_duration(seconds / now * (self._total - self._done))} left" if now else line


def tracked(work: Iterable[T], what: str, total: int, unit: str) -> Iterator[T]:
    """Iterate, and show how far that is."""
    with Progress(what, total, unit) as progress:
        for one in work:
            yield one
            progress.update()


def _duration(seconds: float) -> str:
    """Write a duration: "3 min", "1 h 5 min"."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
