"""What happened in a run: the proof that the penalty acted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from torch import Tensor

from guard_plugin.hosts.seams import Definition, Seam
from guard_plugin.injection.account.tallies import PathCounts, PenaltyValues

__all__ = ["OUTSIDE", "Ledger"]

OUTSIDE = "outside the host's files"
"""The place of a call that no line of the host's makes."""


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _made_under(files: Mapping[str, Mapping[str, Any]]) -> str:
    under = Counter(file["penalty"] for file in files.values() if not file["reason"])
    guards = under.pop("curvature", 0)
    known = " (made under curvature)" if guards else ""
    others = "".join(f", {count} made under {name}" for name, count in under.items())
    return f"; {guards} of {len(files)} files read are GUARD's{known}{others}"


_COUNTS = ("seen", "guarded", "skipped", "under", "sites", "unguarded_losses")


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
        host: The host's folder, its commit, and whether files that it tracks were modified.
        faults: The host's known faults that were found, in JSON's form.
        taken_over: Of each file or folder that another script handed to this one, how it was made (``Origin``, in
            JSON's form); None where there are none.
        teacher: The checkpoint that was given for pretrained weights, in JSON's form.
        paths: Which ways loss calls took to compute the penalty's gradient.
        reached: The penalty's settings that rise, as they were at the last guarded loss call; of several processes, in
            the one that came the least far.
        position: How many guarded loss calls the settings that rise have risen over: this process's, and those of its
            parent before it was forked.
        unguarded_losses: By line of the host, losses on real data that have no form per example or are not seen.
        lagging: Why the penalty may be of another function than the one that is trained; empty where it is not.
        programs: Python programs that the script started, in which nothing is guarded.
        h_at: Where h follows the size of the inputs: by their shape ("3x32x32"), the h that they got.
        expected_here: In a child process, how many it must guard, as its own variables tell.
        process: The id of the process that keeps the ledger.
        started: When guarding began (UTC, ISO 8601).
        ended: When it ended; None while ``outcome`` is "running", which is what a killed run's ledger says for ever.
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
    taken_over: dict[str, dict[str, Any]] | None = None
    teacher: Mapping[str, Any] | None = None
    paths: PathCounts = field(default_factory=PathCounts)
    reached: Mapping[str, float] = field(default_factory=dict)
    position: int = 0
    seen: int = 0
    guarded: int = 0
    expected: int | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    sites: dict[str, Counter[str]] = field(default_factory=dict)
    under: Counter[str] = field(default_factory=Counter)
    unguarded_losses: dict[str, Counter[str]] = field(default_factory=dict)
    values: PenaltyValues = field(default_factory=PenaltyValues)
    lagging: str = ""
    programs: list[str] = field(default_factory=list)
    h_at: dict[str, float] = field(default_factory=dict)
    expected_here: int | None = None
    outcome: str = "running"
    process: int = field(default_factory=os.getpid)
    started: str = field(default_factory=_now)
    ended: str | None = None

    def begin_again(self) -> None:
        """Count for this process from here on, which was forked from the one that was counted for."""
        self.process, self.reached = os.getpid(), {}
        self.seen = self.guarded = 0
        self.skipped, self.sites, self.under, self.unguarded_losses = Counter(), {}, Counter(), {}
        self.values = PenaltyValues()
        self.paths.taken.clear()

    def counts(self) -> dict[str, Any]:
        """Return what this process counted, for the one that started it."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "values": self.values.counts(),
            "paths": self.paths.taken,
            "expected": self.expected,
            "expected_here": self.expected_here,
            "lagging": self.lagging,
            "programs": self.programs,
            "h_at": self.h_at,
            "reached": self.reached,
            "position": self.position,
        }

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what a child process counted.

        Where the child's own variables tell how many calls it must guard, these numbers add up; where they are those of
        a function that the parent was in when it forked, they are the whole run's.
        """
        self.seen += counts["seen"]
        self.guarded += counts["guarded"]
        for name in ("skipped", "under"):
            getattr(self, name).update(counts[name])
        for name in ("sites", "unguarded_losses"):
            for site, losses in counts[name].items():
                getattr(self, name).setdefault(site, Counter()).update(losses)
        self.values.add(counts["values"])
        for path, why in counts["paths"].items():
            self.paths.taken.setdefault(path, Counter()).update(why)
        if counts["expected_here"] is not None:
            self.expected = (self.expected or 0) + counts["expected_here"]
        elif self.expected is None:
            self.expected = counts["expected"]
        self.lagging = self.lagging or counts["lagging"]
        self.h_at = {**counts["h_at"], **self.h_at}
        if counts["reached"] and not (self.reached and self.position <= counts["position"]):
            self.reached, self.position = counts["reached"], counts["position"]
        self.programs += [one for one in counts["programs"] if one not in self.programs]

    def end(self, outcome: str) -> None:
        """Note that the run ended, and how."""
        self.outcome = outcome
        self.ended = _now()

    def note_seen(self, site: str | None, seams: Sequence[Seam]) -> None:
        """Note a loss call, where it was made, and the seams it was made under."""
        self.seen += 1
        self.under.update({seam.name for seam in seams})
        self._site(site)["seen"] += 1

    def note_skipped(self, site: str | None, reason: str) -> None:
        """Note that the loss call was left as it was, and why."""
        self.skipped[reason] += 1
        self._site(site)[reason] += 1

    def note_h(self, shape: str, h: float) -> bool:
        """Note the h that inputs of a shape ("3x32x32") get; tell whether it was not known before."""
        known = self.h_at.get(shape) is not None
        self.h_at.setdefault(shape, h)
        return not known

    def note_guarded(self, site: str | None, value: Tensor | None, loss: Tensor) -> None:
        """Note that the loss call received the penalty (None: would have, at strength 0), and the host's own loss."""
        self.guarded += 1
        self.position += 1
        self._site(site)["on real data" if value is None else "guarded"] += 1
        if value is not None:
            self.values.note(value, loss)

    @property
    def warnings(self) -> list[str]:
        """What makes the run doubtful although it is complete."""
        return [warning for warning in (self.values.warning(), self.lagging) if warning]

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
        kind = "a baseline, without any penalty: " if self.strength == 0 else ""
        skipped = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
        mean = self.values.in_words()
        phase = f"; nothing to guard here: {self.unguarded}" if self.unguarded else ""
        if self.taken_over or (self.taken_over is not None and self.unguarded):
            phase += _made_under(self.taken_over)
        if self.teacher:
            phase += f"; {self.teacher['file']} given for {', '.join(self.teacher['given_for']) or 'nothing'}"
        bad = f"; {self.values.nonfinite} penalties were NOT FINITE" if self.values.nonfinite else ""
        if self.unguarded_losses:
            phase += f"; losses beside, without the penalty: {self.unguarded_in_words()}"
        return (
            f"{self.adapter} {self.script}: {kind}{self.seen} loss calls seen, {self.guarded}{of} {verb}"
            f"{'; skipped: ' + skipped if skipped else ''}{mean}{bad}{phase}"
            f"{''.join(f'; WARNING: {warning}' for warning in self.warnings)}"
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
            "process": {"id": self.process, "started": self.started, "ended": self.ended},
            "summary": self.summary(),
            "warnings": self.warnings,
            "penalty": self._settings(),
            "loss_calls": {
                "seen": self.seen,
                "guarded": self.guarded,
                "penalized": 0 if self.strength == 0 else self.guarded,
                "expected": self.expected,
                "skipped": dict(self.skipped),
            },
            "unguarded_losses": {site: dict(losses) for site, losses in self.unguarded_losses.items()},
            "programs": list(self.programs),
            "penalty_value": self.values.to_json(),
            "memory": self.paths.memory,
            "paths": self.paths.to_json(),
            "unguarded": self.unguarded,
            "seams": seams,
            "sites": {site: dict(counts) for site, counts in self.sites.items()},
            "host": dict(self.host),
            "faults": [dict(fault) for fault in self.faults],
            "teacher": None if self.teacher is None else dict(self.teacher),
            "taken_over": None if self.taken_over is None else dict(self.taken_over),
            "versions": dict(self.versions),
        }

    def _settings(self) -> dict[str, Any]:
        """The penalty's settings; h is that of the first inputs, if it follows their size."""
        settings = dict(self.penalty)
        if self.h_at:
            settings |= {"h": next(iter(self.h_at.values())), "h_at": dict(self.h_at)}
        return {**settings, **({"reached": dict(self.reached)} if self.reached else {})}

    def _site(self, site: str | None) -> Counter[str]:
        return self.sites.setdefault(site or OUTSIDE, Counter())
