"""From a user's options to a penalty: which one, with the settings that an adapter recommends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts import Adapter
from guard_plugin.penalties import Curvature, Penalty, scale_h
from guard_plugin.penalties.adversarial import WHY_NOT_FREE
from guard_plugin.penalties.settings import read_settings
from guard_plugin.plugins import Plugins, look_up

__all__ = ["ChosenPenalty", "choose_penalty", "in_pixels"]

# What is said of a penalty in words of their own, or not at all.
_SAID = frozenset({"name", "combination", "strength", "h", "form"})


@dataclass(frozen=True)
class ChosenPenalty:
    """A penalty, and the shape of one input that its h is for, where h follows the size of the inputs.

    ``reference`` is None where it does not: the user gave h, or the penalty has none.
    """

    penalty: Penalty
    reference: tuple[int, ...] | None = None

    def for_inputs(self, shape: Sequence[int]) -> Penalty:
        """Return the penalty for inputs of this shape."""
        if self.reference is None or not isinstance(self.penalty, Curvature):
            return self.penalty
        return replace(self.penalty, h=scale_h(self.penalty.h, from_shape=self.reference, to_shape=shape))

    def settings(self) -> dict[str, Any]:
        """Return the settings, as the ledger writes them."""
        settings = self.penalty.settings()
        if self.reference is None:
            return settings
        return {**settings, "reference": {"shape": list(self.reference), "h": settings["h"]}}

    def in_words(self, shape: Sequence[int] | None = None) -> str:
        """Say what a run is made under; where h follows the size of the inputs, which it is for those of a shape."""
        settings = self.penalty.settings()
        if self.penalty.strength == 0:
            return "strength 0: a plain run, in which loss calls are counted"
        others = {name: value for name, value in settings.items() if value and name not in _SAID}
        further = "".join(f", {name} {_shown(value)}" for name, value in others.items())
        if not isinstance(self.penalty, Curvature):
            return f"penalty {self.penalty.name}, strength {self.penalty.strength:g}{further}"
        h = f"h {settings['h']:g}"
        if self.reference is not None:
            h += f" at {in_pixels(self.reference)}"
            if shape is None:
                h += ", which follows the size of the images"
            else:
                h += f" -> {self.for_inputs(shape).settings()['h']:.4g} at {in_pixels(shape)}"
        return f"penalty curvature, {self.penalty.form} form, strength {self.penalty.strength:g}, {h}{further}"


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def in_pixels(shape: Sequence[int]) -> str:
    """Write the shape of an input: "3x32x32"."""
    return "x".join(map(str, shape))


def choose_penalty(plugins: Plugins, adapter: Adapter | None, options: dict[str, Any]) -> ChosenPenalty:
    """Make a penalty from a user's options, filled up with the adapter's recommended settings."""
    options = {key: value for key, value in options.items() if value is not None}
    name = options.pop("penalty", "curvature")
    if name == "free" and name not in plugins.penalties:
        raise UnusableInput(WHY_NOT_FREE)
    kind: type[Penalty] = look_up("penalty", name, plugins.penalties)
    reference = None
    if adapter is not None:
        recommended = options.get("form", "gradient") if name == "curvature" else name
        settings = adapter.settings.get(recommended, {})
        if "h" in settings and "h" not in options:
            reference = adapter.settings_for
        options = {**settings, **options}
    parameters = signature(kind).parameters
    strange = sorted(set(options) - set(parameters))
    if strange:
        raise UnusableInput(f"penalty {name!r} has no setting {', '.join(strange)}: expected {', '.join(parameters)}")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in options]
    if missing:
        texts, keywords = zip(*map(_how_to_give, missing))
        raise UnusableInput(
            f"penalty {name!r} needs {', '.join(missing)}: there is no recommended value for this run; "
            f"give {' '.join(texts)}, or in Python {', '.join(keywords)}"
        )
    return ChosenPenalty(kind(**read_settings(kind, options)), reference)


def _how_to_give(setting: str) -> tuple[str, str]:
    """Return how a setting is given on the command line, and in Python."""
    if setting in ("strength", "h"):
        return f"--{setting} NUMBER", f"{setting}=NUMBER"
    if setting == "eps":
        return "--set eps=8/255", "eps=8 / 255"
    return f"--set {setting}=VALUE", f"{setting}=VALUE"
