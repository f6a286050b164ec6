"""The size of the ball that an attack may search."""

import math
from dataclasses import dataclass

from guard_plugin.errors import UnusableInput
from guard_plugin.quantities import parse_number

__all__ = ["Eps", "parse_eps"]


@dataclass(frozen=True)
class Eps:
    """A radius in pixel units, where pixels are in [0, 1].

    Args:
        text: As the user wrote it, for instance "8/255".
        value: The number, > 0; for all norms but l2, an attack takes 1 at most.

    Raises:
        UnusableInput: If the value is out of range.
    """

    text: str
    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise UnusableInput(f"expected a finite eps > 0, in units of pixels in [0, 1], got {self.text}")


def parse_eps(text: str | float) -> Eps:
    """Read a number or a fraction.

    Args:
        text: "8/255", "0.03" or a number.

    Returns:
        The text with its value.

    Raises:
        UnusableInput: If it is neither, or not above 0.

    Example:
        >>> parse_eps("51/255")
        Eps(text='51/255', value=0.2)
    """
    if isinstance(text, bool):
        raise UnusableInput(f"expected eps as a number or a fraction such as 8/255, above 0; got {text}")
    if not isinstance(text, str):
        return Eps(str(float(text)), float(text))
    try:
        return Eps(text.strip(), parse_number(text))
    except ValueError:
        raise UnusableInput(f"expected eps as a number or a fraction such as 8/255, above 0; got {text!r}") from None
