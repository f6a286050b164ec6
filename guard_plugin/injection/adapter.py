"""What knows one host: its scripts, their seams, and how many of their loss calls are on real data."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard_plugin.errors import GuardError, SeamError, UnusableInput
from guard_plugin.injection.seams import Definition, Seam, find_definitions

__all__ = ["Adapter", "ExpectedCount", "Profile"]


@dataclass(frozen=True)
class ExpectedCount:
    """How many loss calls a run must guard, from the host's own variables.

    Args:
        seam: The name of the seam whose local variables tell.
        formula: From those variables to the number.
        explanation: The formula in words, for messages.
    """

    seam: str
    formula: Callable[[Mapping[str, Any]], int]
    explanation: str

    def compute(self, variables: Mapping[str, Any]) -> int:
        """Compute the number.

        Raises:
            SeamError: If the host's variables are not those that the formula needs.
        """
        try:
            return int(self.formula(variables))
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise SeamError(
                f"seam {self.seam}: expected its local variables to give {self.explanation}, found that they do not "
                f"({type(error).__name__}: {error}): without this number a run cannot be proved complete; guard this "
                f"fork with an adapter of its own: docs/writing-an-adapter.md"
            ) from error


@dataclass(frozen=True)
class Profile:
    """One script of a host.

    Args:
        script: The script's path relative to the host's folder: "main.py".
        seams: Its seams; at least one opens, unless the script holds no guarded phase.
        expected: How many loss calls a complete run guards, where the host's variables tell.
        refused: Why the script cannot be guarded at all; empty where it can.
        unguarded: Why the script has nothing to guard and runs as it is; empty where it has.
    """

    script: str
    seams: tuple[Seam, ...] = ()
    expected: ExpectedCount | None = None
    refused: str = ""
    unguarded: str = ""

    def locate(self, script: Path) -> list[Definition]:
        """Find all seams in source.

        Args:
            script: The script as the host has it.

        Raises:
            SeamError: Naming the file and the seam, if one is missing or has another shape.
        """
        return [definition for seam in self.seams for definition in find_definitions(seam, script)]


@dataclass(frozen=True)
class Adapter:
    """A host that can be guarded.

    Args:
        name: What users call it: "dc".
        host: The repository it is for, and the commit it was tried on.
        profiles: Its scripts.
        settings: Recommended penalty settings, by form: {"gradient": {"h": 0.5, "strength": 1.0}}.
    """

    name: str
    host: str
    profiles: tuple[Profile, ...]
    settings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def profile(self, script: Path) -> Profile:
        """Find the profile of a script by its file name.

        Raises:
            UnusableInput: If the adapter does not know the script, or it cannot be guarded, with the reason.
        """
        for profile in self.profiles:
            if Path(profile.script).name == script.name:
                if profile.refused:
                    raise UnusableInput(f"adapter {self.name}: {script.name} cannot be guarded: {profile.refused}")
                return profile
        known = [Path(profile.script).name for profile in self.profiles]
        raise UnusableInput(f"adapter {self.name}: {unknown('script', script.name, known)}")

    def locate(self, profile: Profile, script: Path) -> list[Definition]:
        """Find a profile's seams in source; errors name the adapter."""
        try:
            return profile.locate(script)
        except GuardError as error:
            raise type(error)(f"adapter {self.name}: {error}") from error


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, with the known ones and the nearest of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}: expected one of {', '.join(sorted(known)) or '(none is installed)'}{hint}"
