"""What happened in a run: the proof that the penalty acted."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guard_plugin.files import atomic_file
from guard_plugin.hosts.seams import Definition, Seam

__all__ = ["OUTSIDE", "Ledger", "PathCounts", "PenaltyValues"]

OUTSIDE = "outside the host's files"
"""The place of a call that no line of the host's makes."""


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
            path: {"calls": why.total(), "because": {reason: n for reason, n in why.items() if reason}}
            for path, why in self.taken.items()
        }


@dataclass
class PenaltyValues:
    """The penalty's values over a run, kept on their device, so that noting one never waits for a GPU."""

    first: Tensor | None = None
    last: Tensor | None = None
    _count: int = 0
    _sum: Tensor | float = 0.0
    _nonfinite: Tensor | int = 0

    @property
    def nonfinite(self) -> int:
        """How many were not finite."""
        return int(self._nonfinite)

    def note(self, value: Tensor) -> None:
        """Note the penalty of one guarded loss call."""
        value = value.detach().clone()
        self.first = value if self.first is None else self.first
        self.last = value
        here = value.to(self.first.device)
        self._sum = self._sum + here.double()
        self._nonfinite = self._nonfinite + (~torch.isfinite(here)).long()
        self._count += 1

    def to_json(self) -> dict[str, Any]:
        """Return first, mean, last (null where not finite or none) and how many were not finite."""
        return {
            "first": _finite(self.first),
            "mean": _finite(self._sum / self._count if self._count else None),
            "last": _finite(self.last),
            "nonfinite": self.nonfinite,
        }


def _finite(value: Tensor | float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _made_under(files: Mapping[str, Mapping[str, str]]) -> str:
    under = Counter(file["penalty"] for file in files.values() if not file["reason"])
    guards = under.pop("curvature", 0)
    known = " (made under curvature)" if guards else ""
    others = "".join(f", {count} made under {name}" for name, count in under.items())
    return f"; {guards} of {len(files)} files read are GUARD's{known}{others}"


@dataclass
class Ledger:
    """The account of one run.

    Args:
        adapter: The adapter's name.
        script: The script, as given.
        penalty: The penalty's name and settings.
        strength: The penalty's strength; at 0, "guarded" counts the calls that would have received it.
        unguarded: Why the script has nothing to guard; empty where it has.
        definitions: Where the seams are.
        versions: What ran: name to version.
        host: The host's folder and commit.
        faults: The host's known faults that were found, in JSON's form.
        taken_over: Of each file that another script handed to this one, the penalty that it was made under ("" where
            unknown), and the reason why it is not known to be guarded ("" where it is); None where there are none.
        teacher: The checkpoint that was given for pretrained weights, in JSON's form.
        paths: Which ways loss calls took to compute the penalty's gradient.
        reached: The penalty's settings that rise, as they were at the last guarded loss call.
        unguarded_losses: By line of the host, losses on real data that have no form per example or are not seen.
    """

    adapter: str
    script: str
    penalty: Mapping[str, Any]
    strength: float
    unguarded: str
    definitions: Sequence[Definition]
    versions: Mapping[str, str]
    host: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[Mapping[str, Any]] = ()
    taken_over: dict[str, dict[str, str]] | None = None
    teacher: Mapping[str, Any] | None = None
    paths: PathCounts = field(default_factory=PathCounts)
    reached: Mapping[str, float] = field(default_factory=dict)
    seen: int = 0
    guarded: int = 0
    expected: int | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    sites: dict[str, Counter[str]] = field(default_factory=dict)
    under: Counter[str] = field(default_factory=Counter)
    unguarded_losses: dict[str, Counter[str]] = field(default_factory=dict)
    values: PenaltyValues = field(default_factory=PenaltyValues)
    outcome: str = "running"

    def note_seen(self, site: str | None, seams: Sequence[Seam]) -> None:
        """Note a loss call, where it was made, and the seams it was made under."""
        self.seen += 1
        self.under.update({seam.name for seam in seams})
        self._site(site)["seen"] += 1

    def note_skipped(self, site: str | None, reason: str) -> None:
        """Note that the loss call was left as it was, and why."""
        self.skipped[reason] += 1
        self._site(site)[reason] += 1

    def note_guarded(self, site: str | None, value: Tensor | None) -> None:
        """Note that the loss call received the penalty (None: would have, at strength 0)."""
        self.guarded += 1
        self._site(site)["guarded"] += 1
        if value is not None:
            self.values.note(value)

    def note_unguarded(self, site: str | None, loss: str) -> None:
        """Note a loss on a network under an open seam, on real data, that cannot be guarded."""
        self.unguarded_losses.setdefault(site or OUTSIDE, Counter())[loss] += 1

    def unguarded_in_words(self) -> str:
        """Name the losses that cannot be guarded, by line."""
        return ", ".join(
            f"{n} {loss} at {at}" for at, losses in self.unguarded_losses.items() for loss, n in losses.items()
        )

    def summary(self) -> str:
        """The ledger in one line."""
        of = "" if self.expected is None else f" of {self.expected} expected"
        verb = "on real data, left as they are (strength 0)" if self.strength == 0 else "guarded"
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
        value = self.values.to_json()["mean"]
        mean = f"; mean penalty {value:.4g}" if value is not None else ""
        phase = f"; nothing to guard here: {self.unguarded}" if self.unguarded else ""
        if self.taken_over or (self.taken_over is not None and self.unguarded):
            phase += _made_under(self.taken_over)
        if self.teacher:
            phase += f"; {self.teacher['file']} given for {', '.join(self.teacher['given_for']) or 'nothing'}"
        bad = f"; {self.values.nonfinite} penalties were NOT FINITE" if self.values.nonfinite else ""
        if self.unguarded_losses:
            phase += f"; losses beside, without the penalty: {self.unguarded_in_words()}"
        return (
            f"{self.adapter} {self.script}: {self.seen} loss calls seen, {self.guarded}{of} {verb}"
            f"{'; skipped: ' + skipped if skipped else ''}{mean}{bad}{phase}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the ledger in its fixed keys (DESIGN.md, "Ledger")."""
        seams: dict[str, dict[str, Any]] = {}
        for definition in self.definitions:
            seam = definition.seam
            known = seams.setdefault(seam.name, {"role": seam.role, "at": [], "loss_calls": self.under[seam.name]})
            known["at"].append(f"{definition.file}:{definition.line}")
        return {
            "schema": 1,
            "adapter": self.adapter,
            "script": self.script,
            "outcome": self.outcome,
            "summary": self.summary(),
            "penalty": {**self.penalty, **({"reached": dict(self.reached)} if self.reached else {})},
            "loss_calls": {
                "seen": self.seen,
                "guarded": self.guarded,
                "expected": self.expected,
                "skipped": dict(self.skipped),
            },
            "unguarded_losses": {site: dict(losses) for site, losses in self.unguarded_losses.items()},
            "penalty_value": self.values.to_json(),
            "memory": self.paths.memory,
            "paths": self.paths.to_json(),
            "seams": seams,
            "sites": {site: dict(counts) for site, counts in self.sites.items()},
            "host": dict(self.host),
            "faults": [dict(fault) for fault in self.faults],
            "teacher": None if self.teacher is None else dict(self.teacher),
            "taken_over": None if self.taken_over is None else dict(self.taken_over),
            "versions": dict(self.versions),
        }

    def write(self, path: Path) -> None:
        """Write the ledger as JSON, whole or not at all (to a device or a pipe: straight)."""
        text = json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n"
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        with atomic_file(path) as file:
            file.write(text.encode())

    def _site(self, site: str | None) -> Counter[str]:
        return self.sites.setdefault(site or OUTSIDE, Counter())
