"""What markers and ledgers tell of a benchmark's subject: whether it goes back to networks trained under GUARD."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from guard_plugin.distilled.markers import Origin, bad_end, goes_with, mixed, origin_of
from guard_plugin.errors import UnusableInput

__all__ = ["Proof", "check_ledger", "made_under", "made_under_in_words", "proof_in_words"]

_OTHER_OUT = "choose another --out"


class Proof(NamedTuple):
    """What results.json keeps of how its subject was made.

    Args:
        made_under: What :func:`made_under` returned.
        ledgers: The ledgers that were given, as JSON values.
    """

    made_under: dict[str, dict[str, Any]]
    ledgers: list[dict[str, Any]]

    @classmethod
    def of_results(cls, results: Mapping[str, Any]) -> Proof:
        """Read it from results.json.

        Raises:
            KeyError, TypeError or the like: If it is not what ``guard benchmark`` writes.
        """
        ledgers = results.get("ledgers") or ([] if results["ledger"] is None else [results["ledger"]])
        return cls(dict(results["subject"].get("made_under") or {}), [dict(ledger) for ledger in ledgers])

    @property
    def by_ledgers(self) -> list[Origin]:
        """What the ledgers tell of the subject, if there is no marker and each guarded losses; else nothing."""
        told = any(Origin.of_json(entry).is_told for entry in self.made_under.values())
        guarded = all(int(ledger["loss_calls"]["guarded"]) for ledger in self.ledgers)
        return [] if told or not guarded else [Origin.of_ledger(ledger) for ledger in self.ledgers]

    def to_json(self) -> Proof:
        """Return this as it is after it was written and read."""
        return Proof(*json.loads(json.dumps(self)))

    def check(self) -> None:
        """Refuse a ledger of another penalty than the markers tell of.

        Raises:
            UnusableInput: If there is one.
        """
        origins = [Origin.of_json(entry) for entry in self.made_under.values()]
        for ledger in self.ledgers:
            if not goes_with(ledger, origins):
                told = dict.fromkeys(origin.settings_in_words() for origin in origins if origin.penalty)
                raise UnusableInput(
                    f"expected the ledger of a run that made what is measured, which its markers say was made under "
                    f"{'; '.join(told)}, got that of {_run_in_words(ledger)}, under "
                    f"{Origin.of_ledger(ledger).settings_in_words()}: give the ledger of that run, or leave it out"
                )

    def after(self, recorded: Proof, folder: Path) -> Proof:
        """Return what a finished folder keeps: what it recorded, and what is told only now.

        Raises:
            UnusableInput: If what is told now is other than what was recorded.
        """
        if self.ledgers and recorded.ledgers and self.ledgers != recorded.ledgers:
            raise UnusableInput(
                f"expected the --ledger that {folder} was measured with ({_summaries(recorded)}), found another "
                f"({_summaries(self)}): leave --ledger out, which keeps the recorded one, or {_OTHER_OUT}"
            )
        return Proof(_markers_after(self.made_under, recorded.made_under, folder), self.ledgers or recorded.ledgers)


def check_ledger(ledger: Mapping[str, Any], source: str = "values") -> None:
    """Refuse what is no ledger, and the ledger of a run that did not end well, before anything is measured.

    Args:
        ledger: What ``guard run --ledger`` wrote.
        source: What to call it in messages, such as its file.

    Raises:
        UnusableInput: With the reason.
    """
    try:
        Origin.of_ledger(ledger)
        end = bad_end(ledger)
        int(ledger["loss_calls"]["guarded"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        marker = ": a marker, which is found beside what it marks; leave it out" if "ledger" in ledger else ""
        raise UnusableInput(f"expected --ledger with what guard run --ledger wrote, got {source}{marker}") from error
    if end:
        raise UnusableInput(
            f"expected --ledger of a run that is complete, got {source} of {_run_in_words(ledger)}, which {end}: it "
            f"proves nothing; benchmark what a complete run wrote, or leave --ledger out"
        )


def _run_in_words(ledger: Mapping[str, Any]) -> str:
    return f"the run {ledger['adapter']} {ledger['script']}"


def _summaries(proof: Proof) -> str:
    return "; ".join(str(ledger.get("summary") or ledger.get("script")) for ledger in proof.ledgers)


def _markers_after(
    now: dict[str, dict[str, Any]], recorded: dict[str, dict[str, Any]], folder: Path
) -> dict[str, dict[str, Any]]:
    """Return the markers found now or, if some that name a run are gone, the recorded ones.

    They are matched by what they tell: files may have been moved, and a folder stands for files without markers.
    """
    told = [entry for entry in now.values() if Origin.of_json(entry).is_told]
    gone = [entry for entry in recorded.values() if entry not in told and Origin.of_json(entry).penalty]
    if not gone:
        return now
    other = [entry for entry in told if entry not in recorded.values()]
    if other:
        raise UnusableInput(
            f"expected the markers that {folder} was measured with ({Origin.of_json(gone[0]).in_words()}), found "
            f"another ({Origin.of_json(other[0]).in_words()}): put the markers of then back beside the files, or "
            f"{_OTHER_OUT}"
        )
    return recorded


def made_under(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return by path, for results.json, how distilled sets, stored labels, teachers or networks were made (``Origin``).

    "penalty" is "" where it is not known, and "reason" is "" where it is known to be made under GUARD.
    """
    return {str(path): origin_of(path).to_json() for path in paths}


def proof_in_words(results: Mapping[str, Any]) -> list[str]:
    """Write for people what results.json tells of this: by its ledgers, where they alone tell it, else by markers."""
    proof = Proof.of_results(results)
    by_ledgers = proof.by_ledgers
    if not by_ledgers:
        return made_under_in_words(results["subject"])
    ledgers = "ledger" if len(by_ledgers) == 1 else "ledgers"
    beside = "it" if len(proof.made_under) == 1 else "them"
    lines = [
        f"{', '.join(proof.made_under)}: by the {ledgers} given: "
        f"{'; '.join(origin.told_in_words() for origin in by_ledgers)}; no marker beside {beside}"
    ]
    return [*lines, *_mixed_in_words(by_ledgers)]


def made_under_in_words(subject: Mapping[str, Any]) -> list[str]:
    """Write for people what "subject" of results.json tells of this: a line for each path, and warnings.

    It is a warning where a marker tells that the chain of runs is broken or mixed. That there is no marker is none.
    """
    origins = {path: Origin.of_json(entry) for path, entry in (subject.get("made_under") or {}).items()}
    lines = []
    for path, origin in origins.items():
        warns = origin.reason and origin.is_told and not origin.is_baseline
        lines.append(f"{'warning: ' if warns else ''}{path}: {origin.in_words()}")
    return [*lines, *_mixed_in_words(origins.values())]


def _mixed_in_words(origins: Iterable[Origin]) -> list[str]:
    different = mixed(origins)
    if not different:
        return []
    return [f"warning: what was measured goes back to different penalties: {'; '.join(different)}"]
