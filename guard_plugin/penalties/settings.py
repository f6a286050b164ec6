"""A penalty's settings as text, as the command line has them."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_origin, get_type_hints

from guard_plugin.errors import UnusableInput
from guard_plugin.penalties.base import Penalty
from guard_plugin.quantities import parse_number

__all__ = ["read_settings"]


def read_settings(kind: type[Penalty], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings that are given as text, by the types of the fields of the penalty's class; keep the others.

    UnusableInput is raised if a text is not what its setting is.
    """
    hints = get_type_hints(kind)
    return {
        name: _read(kind.name, name, hints[name], value) if isinstance(value, str) else value
        for name, value in settings.items()
    }


def _read(penalty: str, name: str, hint: Any, text: str) -> Any:
    if hint is str or get_origin(hint) is Literal:
        return text
    if hint not in _KINDS:
        raise UnusableInput(f"penalty {penalty!r}: {name} cannot be given as text: set it in Python")
    reader, expected = _KINDS[hint]
    try:
        return reader(text)
    except (ValueError, KeyError):
        raise UnusableInput(f"penalty {penalty!r}: expected {name} to be {expected}, got {text!r}") from None


_KINDS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    float: (parse_number, "a number, such as 0.5 or 8/255"),
    int: (int, "a whole number"),
    bool: (lambda text: {"true": True, "false": False}[text.lower()], "true or false"),
    tuple[float, ...]: (lambda text: tuple(map(parse_number, text.split(","))), "numbers, such as 0.49,0.48,0.45"),
}
