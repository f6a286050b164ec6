"""What a run will guard, and with which penalty: decided, and checked, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard_plugin import __version__
from guard_plugin.errors import UnusableInput, unknown
from guard_plugin.hosts.adapter import AUTO, Adapter, make_adapter
from guard_plugin.hosts.faults import FoundFault
from guard_plugin.hosts.profile import ExpectedCount, Profile
from guard_plugin.hosts.seams import Definition
from guard_plugin.injection.paths import Paths
from guard_plugin.injection.penalty_choice import ChosenPenalty, choose_penalty
from guard_plugin.plugins import Plugins, installed_plugins

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The plan of one run.

    Args:
        plugins: What is installed.
        distribution: Where the adapter comes from.
        profile: What is known of the script.
        definitions: Where its seams are.
        paths: Chooses how the penalty is computed.
        penalty: The penalty.
        faults: The host's known faults that are there.
        host: The host's folder.
        unguarded: Why the script has nothing to guard with these arguments; empty where it has.
    """

    plugins: Plugins = field(repr=False)
    distribution: str
    profile: Profile
    definitions: list[Definition]
    paths: Paths = field(repr=False)
    penalty: ChosenPenalty
    faults: list[FoundFault]
    host: Path
    unguarded: str

    @classmethod
    def make(
        cls, adapter: str, script: Path, folder: Path | None, options: Mapping[str, Any], arguments: Sequence[str]
    ) -> Plan:
        """Make the plan for a script (resolved); ``folder`` is the one that its imports are looked up in first.

        Raises:
            GuardError: If adapter, script, seams, arguments or settings do not fit.
        """
        plugins, settings = installed_plugins(), dict(options)
        known, distribution = _choose(plugins, adapter, script, folder or script.parent, settings)
        profile = known.profile(script)
        profile.check_arguments(arguments)
        definitions = known.locate(profile, script)
        paths = Paths(plugins.hook, settings)
        penalty = choose_penalty(plugins, known, settings)
        paths.check(penalty.penalty)
        return cls(
            plugins=plugins,
            distribution=distribution,
            profile=profile,
            definitions=definitions,
            paths=paths,
            penalty=penalty,
            faults=profile.find_faults(script),
            host=profile.host(script),
            unguarded=profile.why_unguarded(arguments),
        )

    @property
    def expected(self) -> ExpectedCount | int | None:
        """How many loss calls the run must guard, or what computes it; None where nothing tells."""
        return None if self.unguarded else self.profile.expected


def _choose(plugins: Plugins, name: str, script: Path, folder: Path, options: dict[str, Any]) -> tuple[Adapter, str]:
    """Return an adapter and the distribution it comes from; take the options of "auto" out of ``options``."""
    given = {key: options.pop(key, None) for key in ("guard", "suspend", "real", "made_by", "expect")}
    described = {key: value for key, value in given.items() if value is not None and value != ()}
    if name == AUTO:
        return make_adapter(script, folder=folder, **described), f"guard-plugin {__version__}"
    if described:
        named = ", ".join(f"--{key.replace('_', '-')}" for key in described)
        raise UnusableInput(f"{named}: for adapter auto only; {name} knows its seams")
    if name not in plugins.adapters:
        others = f"{AUTO!r} guards the functions of any other host that --guard names"
        raise UnusableInput(f"{unknown('adapter', name, list(plugins.adapters))}; {others}")
    return plugins.adapters[name].value, plugins.adapters[name].distribution
