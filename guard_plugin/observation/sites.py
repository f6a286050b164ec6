"""What was seen of the losses of a script, by place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["IN_COMPILED", "Function", "Group", "Observation", "Verdict"]

Function = tuple[str, str]
"""A function of the host: its module as the script imports it, and its name ("utils", "epoch")."""

Verdict = Literal["real", "distilled", "looked at", "not guarded", "undecided", "unsupported"]
"""What a loss is to GUARD: on real data; on distilled images that look like it; on real data, but never trained on; of
another kind; cannot be told; on real data, but without a loss per example."""


IN_COMPILED = "a loss in a compiled function"
"""The kind of a loss inside a compiled function, whose batch is not seen."""


@dataclass
class Group:
    """The loss calls of one line, by one way through the host's functions, that are alike.

    Args:
        site: The line, "main.py:191", relative to the host's folder.
        stack: The host's functions on the stack, outermost first.
        loss: The kind of loss: "CrossEntropyLoss".
        network: The class of the network whose output it judges, and whether that was in training mode.
        why: Why the call is, or is not, one on real data.
        batch: Where the batch's values come from.
        shape: The shape of one input.
        calls: How many there were.
        runs: In how many unbroken sequences.
        trained: From how many of them gradients flowed that somebody used.
        discarded: From how many of them gradients flowed that were zeroed before anybody read them.
    """

    site: str
    stack: tuple[Function, ...]
    loss: str
    network: str
    training: bool
    verdict: Verdict
    why: str
    batch: str
    shape: tuple[int, ...] = ()
    calls: int = 0
    runs: int = 0
    trained: int = 0
    discarded: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What losses of one group have in common."""
        return (
            *(self.site, self.stack, self.loss, self.network, self.training),
            *(self.verdict, self.why, self.batch, self.shape),
        )

    @property
    def rhythm(self) -> str:
        """How the calls followed each other, among all that were seen."""
        if self.runs == self.calls or self.runs == 0:
            return "one by one" if self.calls > 1 else ""
        per_run = self.calls / self.runs
        return "all in a row" if self.runs == 1 else f"{self.runs} x {per_run:.4g} in a row"

    def to_json(self) -> dict[str, Any]:
        """Return the group for programs."""
        return {**vars(self), "stack": [".".join(one) for one in self.stack], "rhythm": self.rhythm}


@dataclass
class Observation:
    """All that was seen of one run.

    ``end`` tells whether the script ran to its end, was stopped as enough was seen, or failed; ``children`` are the
    targets of the processes that it started and that did not report, ``programs`` the commands of Python programs that
    it started. ``numbers`` are the whole numbers that each function on the stack of the last loss on real data knew,
    outermost first.
    """

    script: str
    groups: list[Group] = field(default_factory=list)
    calls: int = 0
    end: Literal["complete", "stopped", "failed"] = "complete"
    children: Counter[str] = field(default_factory=Counter)
    programs: list[str] = field(default_factory=list)
    numbers: dict[Function, dict[str, int]] = field(default_factory=dict)
    _last: Group | None = None

    def note(self, seen: Group) -> Group:
        """Note one loss call; return its group."""
        group = self._like(seen)
        self.calls += 1
        group.calls += 1
        group.runs += group is not self._last
        self._last = group
        return group

    def add(self, seen: Group) -> None:
        """Add what a child process saw of a group."""
        group = self._like(seen)
        self.calls += seen.calls
        if group is not seen:
            group.calls += seen.calls
            group.runs += seen.runs
            group.trained += seen.trained
            group.discarded += seen.discarded

    def _like(self, seen: Group) -> Group:
        """Return the group that holds losses like these, which may be this one."""
        key = seen.key
        for group in self.groups:
            if group.key == key:
                return group
        self.groups.append(seen)
        return seen

    def judge(self) -> None:
        """Tell losses on real data that were only looked at from those that something is trained on."""
        for group in self.of("real"):
            if not group.trained:
                group.verdict = "looked at"
                group.why = "their gradients are zeroed before anybody reads them"
                if not group.discarded:
                    group.why = "nothing is trained on it"

    def of(self, verdict: Verdict) -> list[Group]:
        """Return the groups of one verdict."""
        return [group for group in self.groups if group.verdict == verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the observation for programs."""
        return {
            "script": self.script,
            "end": self.end,
            "loss_calls": self.calls,
            "groups": [group.to_json() for group in self.groups],
            "children": dict(self.children),
            "programs": list(self.programs),
        }
