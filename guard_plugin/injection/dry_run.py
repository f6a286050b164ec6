"""What a run would do, in words: nothing of the host is run."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from guard_plugin.distilled.markers import origin_of
from guard_plugin.hosts.profile import ExpectedCount
from guard_plugin.hosts.work_tree import commit_of, is_modified
from guard_plugin.injection.plan import Plan
from guard_plugin.injection.teacher import Teacher

__all__ = ["describe"]

_ROLES = {"opens": "guards under", "suspends": "but not under", "tells": "asks"}


def describe(plan: Plan, arguments: Sequence[str], *, repair: bool, teacher: Path | None) -> list[str]:
    """Return lines that say what a run with these arguments would do: what it guards, how, and what it must reach."""
    return [f"{head:<15}{text}" for head, text in _described(plan, arguments, repair=repair, teacher=teacher)]


def _described(
    plan: Plan, arguments: Sequence[str], *, repair: bool, teacher: Path | None
) -> Iterator[tuple[str, str]]:
    commit = commit_of(plan.host)
    at = "" if commit is None else f" at commit {commit[:7]}{', with changes' if is_modified(plan.host) else ''}"
    yield "host", f"{plan.host}{at}"
    yield "adapter", f"from {plan.distribution}"
    if plan.unguarded:
        yield "guards", f"nothing: {plan.unguarded}"
    else:
        yield "settings", f"{plan.penalty.in_words()}{plan.paths.in_words()}"
        for found in plan.definitions:
            place = f"{os.path.relpath(found.file, plan.host)}:{found.line}"
            yield _ROLES[found.seam.role], f"{found.seam.name}, {place}"
        for only in (*plan.profile.real, *(f"batches made by {words}" for words in plan.profile.made_by)):
            yield "on real data", only
        yield "must guard", _expected(plan.expected)
    for fault in plan.faults:
        yield "known fault", f"{fault.describe()}; {'mended' if repair else '--repair mends it'} in memory"
    if teacher is not None:
        Teacher(teacher)  # which refuses a file that the run would refuse
        yield "teacher", f"{teacher}, {origin_of(teacher).in_words()}"
    for path in (*_files_named(arguments, plan.profile.reads), *plan.profile.folders_read(arguments)):
        yield "may read", f"{path}, {origin_of(path).in_words()}"


def _expected(expected: ExpectedCount | int | None) -> str:
    if expected is None:
        return "at least one loss call"
    if isinstance(expected, int):
        return f"{expected} loss calls, as given"
    return f"{expected.explanation} loss calls, by the variables of {expected.seam}"


def _files_named(arguments: Sequence[str], names: str) -> list[Path]:
    """Return the files of such names that the script's arguments name, or that lie in folders which they name."""
    if not names:
        return []
    places = [Path(text.rpartition("=")[2]) for text in arguments]
    found = [place for place in places if place.is_file() and place.match(names)]
    for folder, _, files in (step for place in places if place.is_dir() for step in os.walk(place)):
        found += [Path(folder, name) for name in sorted(fnmatch.filter(files, names))]
    return found
