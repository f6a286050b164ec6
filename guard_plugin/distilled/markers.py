"""Markers: small files beside what a host wrote, which tell the guarded runs that it goes back to.

A marker lies beside its file or folder ("teacher.pth.guard.json", "recovered.guard.json"), so that no host reads it. It
holds the ledger of the run that wrote it. What a later step wrote goes back to what that step read, and so on, so that
each marker tells of the whole chain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard_plugin.files import file_sha256, joint_sha256

__all__ = ["Origin", "bad_end", "files_in", "goes_with", "marked_sha256", "marker_of", "mixed", "origin_of"]

_NO_MARKER = "there is no "
_SHOWN = ("form", "h", "strength")  # of a penalty's settings, in words
_OF_THE_RUN = ("h_at", "reached", "reference")  # of a penalty: these follow the inputs and the time


@dataclass(frozen=True)
class Origin:
    """What is known of how a file or folder was made.

    Args:
        penalty: Name and settings of the penalty that the networks behind it were trained under; empty where unknown.
        runs: The guarded runs, each with "adapter", "script", "commit" of the host, "guarded" and "expected" loss
            calls, and "started".
        reason: Why it is not known to be made under GUARD; empty where it is.
        about: What the steps tell of it: "dataset" and "arch", as the host calls them.
    """

    penalty: Mapping[str, Any] = field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] = ()
    reason: str = ""
    about: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, entry: Mapping[str, Any]) -> Origin:
        """Read what :meth:`to_json` returned; older ledgers have the penalty's name alone."""
        penalty = entry.get("settings") or ({"name": entry["penalty"]} if entry["penalty"] else {})
        return cls(dict(penalty), list(entry.get("runs", ())), str(entry["reason"]), dict(entry.get("about", {})))

    @classmethod
    def of_ledger(cls, ledger: Mapping[str, Any]) -> Origin:
        """Return what a ledger tells of its own run alone."""
        run = {
            "adapter": str(ledger["adapter"]),
            "script": str(ledger["script"]),
            "commit": (ledger.get("host") or {}).get("commit"),
            "guarded": ledger["loss_calls"]["guarded"],
            "expected": ledger["loss_calls"].get("expected"),
            "started": (ledger.get("process") or {}).get("started"),
        }
        return cls({**ledger["penalty"], "name": str(ledger["penalty"]["name"])}, [run])

    def to_json(self) -> dict[str, Any]:
        """Return this in JSON's form, as it stands in ledgers and results.json."""
        settings = {"settings": dict(self.penalty), "runs": [dict(run) for run in self.runs]} if self.penalty else {}
        about = {"about": dict(self.about)} if self.about else {}
        return {"penalty": str(self.penalty.get("name", "")), "reason": self.reason, **settings, **about}

    @property
    def is_baseline(self) -> bool:
        """Whether every run that it goes back to is known, and was one at strength 0."""
        return self.penalty.get("strength") == 0

    @property
    def is_told(self) -> bool:
        """Whether a marker tells how it was made; a script that ran without ``guard`` leaves none."""
        return not self.reason.startswith(_NO_MARKER)

    def settings_in_words(self) -> str:
        """Name the penalty and its settings: "curvature (form gradient, h 0.433, strength 100)"."""
        if self.is_baseline:
            return "strength 0, a baseline"
        given = [f"{key} {_short(self.penalty[key])}" for key in _SHOWN if self.penalty.get(key) is not None]
        return f"{self.penalty.get('name')}{' (' + ', '.join(given) + ')' if given else ''}"

    def in_words(self) -> str:
        """Say how it was made: penalty, settings, and of each run the host's commit and how many losses it guarded."""
        if self.reason and not self.is_baseline:
            return f"not known to be made under GUARD: {self.reason}"
        return f"made under {self.told_in_words()}"

    def told_in_words(self) -> str:
        """Name the penalty, its settings and the runs: "curvature (h 0.4); dc main.py: 5 of 5 losses guarded"."""
        verb = "left as they are" if self.is_baseline else "guarded"
        runs = "; ".join(f"{_run_in_words(run)} losses {verb}" for run in self.runs)
        return f"{self.settings_in_words()}{f'; {runs}' if runs else ''}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _run_in_words(run: Mapping[str, Any]) -> str:
    commit = f" at {str(run['commit'])[:7]}" if run.get("commit") else ""
    of = f" of {run['expected']}" if run.get("expected") is not None else ""
    return f"{run['adapter']} {run['script']}{commit}: {run['guarded']}{of}"


def mixed(origins: Iterable[Origin]) -> list[str]:
    """Return the penalties, in words, that things which belong together were made under, if these are several."""
    known = [origin for origin in origins if origin.penalty]
    different = [one for one in known if not all(_alike(one.penalty, other.penalty) for other in known)]
    return list(dict.fromkeys(one.settings_in_words() for one in different))


def bad_end(ledger: Mapping[str, Any]) -> str:
    """Say how a run ended that proves nothing ("ended as 'incomplete'"); empty for one that is complete."""
    outcome = str(ledger["outcome"])
    if outcome == "running":
        return "did not end, or goes on"
    return "" if outcome == "complete" else f"ended as {outcome!r}"


def goes_with(ledger: Mapping[str, Any], origins: Iterable[Origin]) -> bool:
    """Tell whether a ledger can be of a run behind any of these things.

    One that guarded no loss, such as the last step of a chain, says nothing of the penalty: it goes with all of them.
    """
    known = [origin.penalty for origin in origins if origin.penalty]
    if not known or not int(ledger["loss_calls"]["guarded"]):
        return True
    return any(_alike(Origin.of_ledger(ledger).penalty, penalty) for penalty in known)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in (one.keys() & other.keys()).difference(_OF_THE_RUN))


def marker_of(path: Path) -> Path:
    """Return where the marker of a file or folder lies: beside it, so that no host reads it."""
    return path.with_name(f"{path.name}.guard.json")


def files_in(folder: Path) -> list[Path]:
    """Return all files in a folder and below it, in the order of their paths."""
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)


def marked_sha256(path: Path) -> str:
    """Compute a file's SHA-256, or of a folder the joint one of all files below it with their paths in it."""
    if path.is_dir():
        return joint_sha256((file.relative_to(path).as_posix(), file) for file in files_in(path))
    return file_sha256(path)


def origin_of(path: Path) -> Origin:
    """Read how a file or folder was made from the marker beside it; its contents are hashed to see that it is that one.

    A marker that cannot be read, or does not vouch for the file, gives the reason.
    """
    path = path.absolute()
    marker = marker_of(path)
    if not marker.is_file():
        return Origin(reason=f"{_NO_MARKER}{marker.name} beside it")
    try:
        return _judged(json.loads(marker.read_text(encoding="utf-8")), path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Origin(reason=f"{marker.name} cannot be read ({type(error).__name__})")


def _judged(marker: Mapping[str, Any], path: Path) -> Origin:
    """Return what a marker tells, or why it does not vouch for the file or folder."""
    ledger, about = marker["ledger"], {str(key): str(value) for key, value in marker.get("about", {}).items()}
    if ledger["outcome"] == "running":
        return Origin(reason=f"the run that wrote it {bad_end(ledger)}", about=about)
    if marker["sha256"] != marked_sha256(path):
        other = "it is another file than" if path.is_file() else "its files are others than those that"
        return Origin(reason=f"{other} its marker was written for")
    sources = {str(name): Origin.of_json(entry) for name, entry in (ledger["taken_over"] or {}).items()}
    about = {**{key: value for source in sources.values() for key, value in source.about.items()}, **about}
    own = [Origin.of_ledger(ledger)] if int(ledger["loss_calls"]["guarded"]) else []
    reason = _doubt(ledger, own, sources)
    if not reason and int(marker.get("others", 0)):
        reason = f"{marker['others']} files in it are not of the run that wrote the others"
    if reason:
        return Origin(reason=reason, about=about)
    behind = [*own, *sources.values()]
    reason = "it was made at strength 0" if behind[0].is_baseline else ""
    runs = {json.dumps(run, sort_keys=True): run for one in behind for run in one.runs}
    return Origin(behind[0].penalty, list(runs.values()), reason, about)


def _doubt(ledger: Mapping[str, Any], own: Sequence[Origin], sources: Mapping[str, Origin]) -> str:
    """Say why a run does not vouch for what it wrote; an empty text where it does."""
    # A fault at which a script stops did no harm to one that ended; older markers do not tell.
    faults = [str(fault["name"]) for fault in ledger["faults"] if not (fault["repaired"] or fault.get("stops"))]
    if end := bad_end(ledger):
        return f"the run that wrote it {end}"
    if not own and not ledger.get("unguarded"):
        return "the run that wrote it guarded no loss call"
    if not own and not sources:
        return "the run that wrote it has nothing to guard, and read no file of which a marker could tell"
    if faults:
        return f"the run that wrote it had a fault of the host, {', '.join(map(repr, faults))}, which --repair mends"
    behind = [*own, *sources.values()]
    if all(one.is_baseline for one in behind):
        return ""
    plain = [name for name, source in sources.items() if source.reason]
    if plain:
        return f"the run that wrote it went on from {', '.join(map(repr, plain))}, not known to be made under GUARD"
    different = mixed(behind)
    if different:
        return f"it goes back to runs under different penalties: {'; '.join(different)}"
    return ""
