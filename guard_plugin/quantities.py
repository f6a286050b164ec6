"""Numbers as users write them: "0.03" or "8/255"."""

import math
import re

__all__ = ["not_pixels", "parse_number"]

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FRACTION = re.compile(rf"([-+]?{_NUMBER})(?:/({_NUMBER}))?")


_ROUNDING = 1e-6  # of pixels in float32 that were normalised and brought back


def not_pixels(low: float, high: float, *, otherwise: str) -> str:
    """Say of values that are not all in [0, 1] from where to where they go, and what to do about it.

    Args:
        low: The lowest value; NaN if there are such.
        high: The highest.
        otherwise: What to do about values that leave the range by more than rounding.

    Example:
        >>> not_pixels(0.0, 255.0, otherwise="divide by 255")
        'got values from 0 to 255: divide by 255'
    """
    is_rounding = low >= -_ROUNDING and high <= 1 + _ROUNDING
    fix = "they leave it by rounding alone: images.clamp(0, 1) brings them back" if is_rounding else otherwise
    return f"got values from {low:.8g} to {high:.8g}: {fix}"


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
