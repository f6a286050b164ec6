"""Numbers as a comparison shows them."""

import re

__all__ = ["percent", "points", "typeset"]


def percent(fraction: float) -> str:
    """Write a fraction in percent, with one decimal: "76.8"."""
    return f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """Write a difference in percent points, with its sign unless it is rounded to zero: "+2.7"."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if float(text) == 0 else text


def typeset(text: str) -> str:
    """Put true minus signs before numbers, and keep percent signs on the line of their number."""
    text = re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)
