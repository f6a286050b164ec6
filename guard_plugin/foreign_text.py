"""Text of unknown origin (names, paths, strings from files), made safe to print."""

import re
import sys

__all__ = ["on_one_line", "printable", "tell"]


def printable(text: str) -> str:
    r"""Write each character that terminals obey or hide (escape, bidi override, lone surrogate) as its code: \x1b."""
    return re.sub(r"[^ -~\n\t\xa0]", lambda found: found[0] if found[0].isprintable() else _code(found[0]), text)


def tell(text: str) -> None:
    """Say something to the user on stderr, as guard; the text may hold what is of unknown origin."""
    print(printable(f"guard: {text}"), file=sys.stderr)


def on_one_line(text: str) -> str:
    """Write spaces in place of line breaks and tabs, so that the text cannot pass for another line of the output."""
    return " ".join(text.split())


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
