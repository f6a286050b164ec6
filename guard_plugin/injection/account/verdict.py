"""Whether a run that ended well is a GUARD run: penalties that are numbers, and not all 0, on as many losses as due."""

from __future__ import annotations

from collections.abc import Collection

from guard_plugin.errors import NothingGuarded
from guard_plugin.hosts.profile import ExpectedCount
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.penalties import Penalty

__all__ = ["expected_calls", "problem_of"]


def problem_of(
    ledger: Ledger, penalty: Penalty, expected: ExpectedCount | None, real: Collection[str]
) -> NothingGuarded | None:
    """Return what is wrong with a run, by its ledger, or None.

    Args:
        ledger: What happened.
        penalty: What it was to add.
        expected: What tells, from the host's variables, how many loss calls must be guarded.
        real: The lines ("main.py:191") whose loss calls are on real data, as the user said.
    """
    message = (
        _guarded_unexpectedly(ledger)
        or _nothing_guarded(ledger)
        or _not_counted(ledger, expected)
        or _wrong_count(ledger, expected)
        or _lines_missed(ledger, real)
        or _not_finite(ledger)
        or _always_zero(ledger)
        or _ramp_not_ended(ledger, penalty)
    )
    return NothingGuarded(message) if message else None


def expected_calls(ledger: Ledger, expected: ExpectedCount | None) -> str:
    """Return in words how many loss calls must be guarded, and why."""
    return f"{ledger.expected} guarded loss calls ({expected.explanation if expected else 'as given'})"


def _guarded_unexpectedly(ledger: Ledger) -> str:
    if not ledger.unguarded or not ledger.guarded:
        return ""
    sites = [site for site, counts in ledger.sites.items() if counts["guarded"] or counts["on real data"]]
    return (
        f"expected nothing to guard, as with these arguments {ledger.unguarded}, found {ledger.guarded} loss calls on "
        f"real data, at {', '.join(sites)}: whether these are all is not known; leave out the option that says so, or "
        f"guard this fork with an adapter of its own: docs/writing-an-adapter.md"
    )


def _nothing_guarded(ledger: Ledger) -> str:
    if ledger.unguarded or ledger.guarded:
        return ""
    return (
        f"expected loss calls on real data, found that none of the {ledger.seen} loss calls seen was one: this "
        f"was a plain run. {_where_they_went(ledger)}"
    )


def _not_counted(ledger: Ledger, expected: ExpectedCount | None) -> str:
    if expected is None or ledger.expected is not None:
        return ""
    return (
        f"expected loss calls under {expected.seam}, whose local variables tell how many there must be, "
        f"found none of the {ledger.seen} seen there: the run cannot be proved complete; guard this fork with "
        f"an adapter of its own: docs/writing-an-adapter.md"
    )


def _wrong_count(ledger: Ledger, expected: ExpectedCount | None) -> str:
    if ledger.expected is None or ledger.guarded == ledger.expected:
        return ""
    return (
        f"expected {expected_calls(ledger, expected)}, found {ledger.guarded} of {ledger.seen} seen: what the script "
        f"wrote is not a GUARD result. {_where_they_went(ledger)}"
    )


def _lines_missed(ledger: Ledger, real: Collection[str]) -> str:
    missed = [line for line in real if line not in ledger.sites]
    if not missed:
        return ""
    return (
        f"expected a loss call at {', '.join(missed)}, as --real says, found none; they were made at "
        f"{', '.join(ledger.sites) or 'no line'}"
    )


def _not_finite(ledger: Ledger) -> str:
    if not ledger.values.nonfinite:
        return ""
    return (
        f"expected finite penalties, found {ledger.values.nonfinite} of {ledger.guarded} that are not: what "
        f"the script wrote is not a GUARD result; lower strength or h"
    )


def _always_zero(ledger: Ledger) -> str:
    nothing = ledger.values.why_nothing_changed()
    return f"expected a penalty that acts, found that {nothing}" if nothing else ""


def _ramp_not_ended(ledger: Ledger, penalty: Penalty) -> str:
    name, calls = max(penalty.ramps().items(), key=lambda ramp: ramp[1], default=("", 0))
    if ledger.unguarded or penalty.strength == 0 or ledger.position >= calls:
        return ""
    where = " in one of the processes" if ledger.position < ledger.guarded else ""
    return (
        f"expected at least {calls} guarded loss calls for the ramp, found {ledger.position}{where}: {name} rose to "
        f"{ledger.reached[name]:.6g} only, not to {getattr(penalty, name):.6g}, and what the script "
        f"wrote is not a GUARD result; shorten the ramp"
    )


def _where_they_went(ledger: Ledger) -> str:
    skipped = ", ".join(f"{count} {reason}" for reason, count in ledger.skipped.items())
    beside = f"; losses that cannot be guarded: {ledger.unguarded_in_words()}" if ledger.unguarded_losses else ""
    return f"Skipped: {skipped or 'none'}; loss calls under each seam: {dict(ledger.under) or 'none'}{beside}"
