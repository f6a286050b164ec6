"""What markers tell of a benchmark's subject: whether it goes back to networks that were trained under GUARD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from guard_plugin.distilled.markers import Origin, mixed, origin_of

__all__ = ["made_under", "made_under_in_words"]


def made_under(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return by path, for results.json, how distilled sets, stored labels, teachers or networks were made (``Origin``).

    "penalty" is "" where it is not known, and "reason" is "" where it is known to be made under GUARD.
    """
    return {str(path): origin_of(path).to_json() for path in paths}


def made_under_in_words(subject: Mapping[str, Any]) -> list[str]:
    """Write for people what "subject" of results.json tells of this: a line for each path, and warnings.

    It is a warning where a marker tells that the chain of runs is broken or mixed. That there is no marker is none.
    """
    origins = {path: Origin.of_json(entry) for path, entry in (subject.get("made_under") or {}).items()}
    lines = []
    for path, origin in origins.items():
        warns = origin.reason and origin.is_told and not origin.is_baseline
        lines.append(f"{'warning: ' if warns else ''}{path}: {origin.in_words()}")
    if different := mixed(origins.values()):
        lines.append(f"warning: what was measured goes back to different penalties: {'; '.join(different)}")
    return lines
