"""What was observed, as a table and a command."""

from __future__ import annotations

from collections.abc import Sequence

from guard_plugin.observation.proposal import Proposal
from guard_plugin.observation.sites import Group, Observation, Verdict

__all__ = ["report"]

_GUARD: dict[Verdict, str] = {
    "real": "GUARD",
    "distilled": "no",
    "looked at": "no",
    "not guarded": "no",
    "undecided": "?",
    "unsupported": "cannot",
}
_ENDS = {"complete": "to the script's end", "stopped": "until it was stopped", "failed": "until the script failed"}
_HEADS = ("calls", "line", "function", "loss", "network", "batch", "guard?", "why")


def report(observation: Observation, proposal: Proposal, script: Sequence[str]) -> str:
    """Return the text that ``guard observe`` prints; ``script`` is what was run, with its arguments."""
    seen = f"{observation.calls} losses seen, {_ENDS[observation.end]}; nothing was changed"
    lines = [f"{observation.script}: {seen}", ""]
    rows = [_HEADS, *map(_row, sorted(observation.groups, key=lambda group: -group.calls))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS) - 1)]
    for row in rows:
        lines.append("  ".join([cell.ljust(width) for cell, width in zip(row, widths)] + [row[-1]]).rstrip())
    lines += ["", *(f"note: {note}" for note in proposal.notes)]
    if proposal.why_not:
        return "\n".join([*lines, f"nothing to propose: {proposal.why_not}"])
    whole = "" if proposal.expect is not None else "; with --expect N, if you know how many there must be"
    command = proposal.command(script)
    return "\n".join([*lines, f"GUARD belongs to the lines that say so{whole}:", "", f"    {command}"])


def _row(group: Group) -> tuple[str, ...]:
    function = ".".join(group.stack[-1]) if group.stack else "?"
    calls = f"{group.calls} ({group.rhythm})" if group.rhythm else str(group.calls)
    mode = "training" if group.training else "eval"
    return (
        *(calls, group.site, function, group.loss, f"{group.network}, {mode}"),
        *(group.batch or "?", _GUARD[group.verdict], group.why),
    )
