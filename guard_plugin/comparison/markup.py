"""HTML and SVG that cannot be broken by what is put into them: text is escaped unless it is ``Markup``."""

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

__all__ = ["DASH", "MINUS", "Content", "Markup", "tag", "typeset"]

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

_EMPTY = frozenset({"meta", "img", "path", "line", "circle", "rect", "polygon", "polyline"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[str | Iterable[str]]"


def tag(name: str, /, *content: Content, **attributes: str | float | bool) -> Markup:
    """An element.

    Args:
        name: Its name.
        content: Strings, escaped unless they are ``Markup``, and iterables of them.
        attributes: Their values are escaped. A trailing underscore is dropped ("class_"), others become hyphens; True
            stands for an attribute without a value, and False leaves it away.
    """
    opening = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items() if value is not False)}"
    # In SVG an element without content has to be closed; in HTML the slash of one that cannot have any is ignored.
    return Markup(f"{opening}/>" if name in _EMPTY else f"{opening}>{_inner(content)}</{name}>")


def typeset(text: str) -> str:
    """Text with true minus signs before its numbers, and percent signs that stay with them."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", re.sub(r"(?<![\w.])-(?=\d)", MINUS, text))


def _attribute(key: str, value: str | float | bool) -> str:
    key = key.rstrip("_").replace("_", "-")
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f" {key}" if value is True else f' {key}="{escape(shown)}"'


def _inner(content: Iterable[str | Iterable[str | Iterable[str]]]) -> str:
    return "".join(_safe(part) if isinstance(part, str) else _inner(part) for part in content)


def _safe(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)
