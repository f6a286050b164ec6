"""What markers and ledgers, as results.json has them, tell of a penalty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from guard_plugin.comparison.results_file import Reported
from guard_plugin.distilled.markers import Origin, bad_end, mixed
from guard_plugin.evaluation.proof import made_under_in_words

__all__ = ["Proof", "proof_of"]

_UNKNOWN = "not known"


class Proof(NamedTuple):
    """What is known of the runs that an entry goes back to.

    Args:
        penalty: The penalty and its settings; "not known" where nothing vouches for them.
        losses: How many losses were guarded and by what that is told, with the host's commit.
        warnings: Why that is to be doubted, such as a broken chain.
        details: Each marker and ledger in words.
    """

    penalty: str
    losses: str
    warnings: tuple[str, ...]
    details: tuple[str, ...]


def proof_of(reported: Reported) -> Proof:
    """Read the markers of a benchmark or, where there is none, its ledgers.

    Raises:
        KeyError, TypeError or the like: If they are not what guarded runs write.
    """
    subject = reported.results["subject"]
    made_under = {str(path): Origin.of_json(entry) for path, entry in (subject.get("made_under") or {}).items()}
    details = [*made_under_in_words(subject), *(f"ledger: {one.get('summary')}" for one in reported.ledgers)]
    marked = [origin for origin in made_under.values() if origin.is_told]
    if marked:
        without = len(made_under) - len(marked)
        warnings = [f"{without} of {len(made_under)} files have no marker"] if without else []
        return _proof("marker", marked, warnings, details)
    if reported.ledgers:
        origins = [Origin.of_ledger(ledger) for ledger in reported.ledgers]
        warnings = [f"a run {end}" for ledger in reported.ledgers if (end := bad_end(ledger))]
        return _proof("ledger", origins, warnings, details)
    return Proof(_UNKNOWN, "no ledger, no marker", (), tuple(details))


def _proof(told_by: str, origins: Sequence[Origin], warnings: list[str], details: Sequence[str]) -> Proof:
    broken = [origin.reason for origin in origins if origin.reason and not origin.is_baseline]
    different = mixed(origins)
    warnings += [f"broken chain: {reason}" for reason in dict.fromkeys(broken)]
    warnings += [f"different penalties: {'; '.join(different)}"] if different else []
    runs = _runs(origins)
    warnings += [
        f"{run['guarded']} of {run['expected']} losses guarded in {run['script']}"
        for run in runs
        if run.get("expected") not in (None, run["guarded"])
    ]
    settings = dict.fromkeys(origin.settings_in_words() for origin in origins if origin.penalty)
    known = settings and not warnings
    return Proof(
        "; ".join(settings) if known else _UNKNOWN,
        f"{told_by}: {_losses(origins) if runs else 'of no guarded run'}",
        tuple(warnings),
        tuple(details),
    )


def _runs(origins: Iterable[Origin]) -> list[Mapping[str, Any]]:
    """Return the runs that things go back to, each once."""
    return list({repr(run): run for origin in origins for run in origin.runs}.values())


def _losses(origins: Sequence[Origin]) -> str:
    """Write the losses of all runs together: "40 of 40 losses guarded, host at 8d00cba"."""
    told = [
        f"{_added_up(runs)} losses {verb}"
        for verb, is_baseline in (("guarded", False), ("left as they are", True))
        if (runs := _runs(origin for origin in origins if origin.is_baseline == is_baseline))
    ]
    commits = dict.fromkeys(str(run["commit"])[:7] for run in _runs(origins) if run.get("commit"))
    return ", ".join([*told, f"host at {', '.join(commits)}" if commits else "commit of the host not told"])


def _added_up(runs: Sequence[Mapping[str, Any]]) -> str:
    guarded, expected = sum(int(run["guarded"]) for run in runs), [run.get("expected") for run in runs]
    return str(guarded) if None in expected else f"{guarded} of {sum(int(one) for one in expected if one is not None)}"
