"""Numbers as users write them: "0.03" or "8/255"."""

import math
import re

__all__ = ["parse_number"]

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FRACTION = re.compile(rf"([-+]?{_NUMBER})(?:/({_NUMBER}))?")


def parse_number(text: str) -> float:
    """Read a number or a fraction of two numbers.

    Args:
        text: Such as "0.03", "1e-3" or "8/255"; white space around it is ignored.

    Returns:
        Its value, finite.

    Raises:
        ValueError: If the text is neither, or its value is not finite.

    Example:
        >>> parse_number("51/255")
        0.2
    """
    match = _FRACTION.fullmatch(text.strip())
    if match is None or (match[2] is not None and float(match[2]) == 0):
        raise ValueError(f"{text!r} is neither a number nor a fraction such as 8/255")
    value = float(match[1]) / float(match[2] or 1)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value
