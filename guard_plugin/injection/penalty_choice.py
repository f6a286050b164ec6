"""From a user's options to a penalty: which one, with the settings that an adapter recommends."""

from __future__ import annotations

from inspect import signature
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts import Adapter
from guard_plugin.penalties import Penalty
from guard_plugin.penalties.adversarial import WHY_NOT_FREE
from guard_plugin.penalties.settings import read_settings
from guard_plugin.plugins import Plugins, look_up

__all__ = ["make_penalty"]


def make_penalty(plugins: Plugins, adapter: Adapter | None, options: dict[str, Any]) -> Penalty:
    """Make a penalty from a user's options, filled up with the adapter's recommended settings."""
    options = {key: value for key, value in options.items() if value is not None}
    name = options.pop("penalty", "curvature")
    if name == "free" and name not in plugins.penalties:
        raise UnusableInput(WHY_NOT_FREE)
    kind: type[Penalty] = look_up("penalty", name, plugins.penalties)
    if adapter is not None:
        recommended = options.get("form", "gradient") if name == "curvature" else name
        options = {**adapter.settings.get(recommended, {}), **options}
    parameters = signature(kind).parameters
    strange = sorted(set(options) - set(parameters))
    if strange:
        raise UnusableInput(f"penalty {name!r} has no setting {', '.join(strange)}: expected {', '.join(parameters)}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    if missing:
        raise UnusableInput(
            f"penalty {name!r} needs {', '.join(missing)}: there is no recommended value for this run; "
            f"give {' '.join(map(_how_to_give, missing))}"
        )
    return kind(**read_settings(kind, options))


def _how_to_give(setting: str) -> str:
    if setting == "eps":
        return "--set eps=8/255 (in Python, eps=8 / 255)"
    return f"--{setting} NUMBER" if setting in ("strength", "h") else f"--set {setting}=VALUE"
