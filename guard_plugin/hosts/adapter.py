"""An adapter: the knowledge of one host, which is its scripts and the settings recommended for it.

For a host without one, the adapter "auto" is made from functions that the user names on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from guard_plugin.errors import GuardError, UnusableInput, unknown
from guard_plugin.hosts.profile import Profile
from guard_plugin.hosts.seams import MODULE_LEVEL, Definition, Seam

__all__ = ["AUTO", "Adapter", "make_adapter"]

AUTO = "auto"


@dataclass(frozen=True)
class Adapter:
    """A host that can be guarded.

    Args:
        name: What users call it: "dc".
        host: The repository it is for, and the commit it was tried on.
        profiles: Its scripts.
        settings: Recommended settings: of the curvature penalty by its form, of another by its name:
            {"gradient": {"h": 3.0, "strength": 100.0}, "gradient_norm": {"strength": 1.0}}.
        settings_for: The shape of one input that a recommended h is for, (3, 224, 224): a run gets it carried over to
            its own inputs (scale_h). None: h holds at every size.
    """

    name: str
    host: str
    profiles: tuple[Profile, ...]
    settings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    settings_for: tuple[int, ...] | None = None

    def profile(self, script: Path) -> Profile:
        """Find the profile of a script by its path's end.

        Raises:
            UnusableInput: If the adapter does not know the script, or it cannot be guarded, with the reason.
        """
        for profile in self.profiles:
            parts = Path(profile.script).parts
            if script.parts[-len(parts) :] == parts:
                if profile.refused:
                    raise UnusableInput(f"adapter {self.name}: {profile.script} cannot be guarded: {profile.refused}")
                return profile
        found = next((p.script for p in self.profiles if Path(p.script).name == script.name), None)
        if found is not None:
            raise UnusableInput(f"adapter {self.name}: expected {found} in the folders of its host, found {script}")
        raise UnusableInput(f"adapter {self.name}: {unknown('script', script.name, [p.script for p in self.profiles])}")

    def locate(self, profile: Profile, script: Path) -> list[Definition]:
        """Find a profile's seams in source; errors name the adapter."""
        try:
            return profile.locate(script)
        except GuardError as error:
            raise type(error)(f"adapter {self.name}: {error}") from error


def make_adapter(
    script: Path,
    *,
    folder: Path | None = None,
    guard: Sequence[str] = (),
    suspend: Sequence[str] = (),
    real: Sequence[str] = (),
    made_by: Sequence[str] = (),
    expect: int | None = None,
) -> Adapter:
    """Make an adapter for one script.

    Args:
        script: The script.
        folder: Its host's folder, in which its imports are looked up; by default its own.
        guard: Where loss calls are candidates: "MODULE:FUNCTION", or "MODULE" for a file's module level.
        suspend: Where they are not, even under one of the former.
        real: Lines, "FILE:LINE" with FILE relative to the host's folder, whose loss calls are on real data although
            that cannot be told from their input.
        made_by: What makes batches of real data, as ``guard observe`` names it, where lines and functions do not tell
            them from others.
        expect: How many loss calls the run must guard, if the user knows; else at least one.

    Raises:
        UnusableInput: If there is nothing to guard, a seam is not written like this, or is both.
    """
    if not guard:
        raise UnusableInput(
            "adapter auto: expected --guard MODULE:FUNCTION, which says under which function the loss on real data is "
            "computed (MODULE alone for code at a file's module level); got none"
        )
    both = sorted(set(guard) & set(suspend))
    if both:
        raise UnusableInput(f"adapter auto: {', '.join(both)} cannot be both guarded and suspended")
    if expect is not None and expect < 1:
        raise UnusableInput(f"adapter auto: expected --expect >= 1, got {expect}")
    folder = folder or script.parent
    for text in real:
        _check_line(text, folder)
    seams = (*(_seam(text, "opens") for text in guard), *(_seam(text, "suspends") for text in suspend))
    return Adapter(
        name=AUTO,
        host=f"{folder} (as described on the command line)",
        profiles=(
            Profile(
                script=script.relative_to(folder).as_posix(),
                seams=seams,
                expected=expect,
                real=tuple(real),
                made_by=tuple(made_by),
                roots=() if folder == script.parent else (os.path.relpath(folder, script.parent),),
            ),
        ),
    )


def _check_line(text: str, folder: Path) -> None:
    file, _, line = text.rpartition(":")
    lines = (folder / file).read_bytes().count(b"\n") + 1 if file and (folder / file).is_file() else 0
    if not (line.isdecimal() and 1 <= int(line) <= lines):
        raise UnusableInput(
            f"adapter auto: expected --real FILE:LINE, a line of a file in {folder}, such as main.py:191, got {text!r}"
        )


def _seam(text: str, role: Literal["opens", "suspends"]) -> Seam:
    module, colon, function = text.partition(":")
    names = [*module.split("."), *([function] if colon else [])]
    if not all(name.isidentifier() for name in names):
        raise UnusableInput(f"adapter auto: expected a seam as MODULE:FUNCTION, such as utils:epoch, got {text!r}")
    return Seam(module, function if colon else MODULE_LEVEL, role, parameters=None)
