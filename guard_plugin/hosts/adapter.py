"""An adapter: the knowledge of one host, which is its scripts and the settings recommended for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from guard_plugin.errors import GuardError, UnusableInput, unknown
from guard_plugin.hosts.profile import Profile
from guard_plugin.hosts.seams import Definition

__all__ = ["Adapter"]


@dataclass(frozen=True)
class Adapter:
    """A host that can be guarded.

    Args:
        name: What users call it: "dc".
        host: The repository it is for, and the commit it was tried on.
        profiles: Its scripts.
        settings: Recommended settings: of the curvature penalty by its form, of another by its name:
            {"gradient": {"h": 0.5, "strength": 1.0}, "gradient_norm": {"strength": 1.0}}.
    """

    name: str
    host: str
    profiles: tuple[Profile, ...]
    settings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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
