"""A type for argparse."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from common.arguments import number


def share(*, open_end: bool = False) -> Callable[[str], float]:
    """An argparse type: from 0 (or, with an open end, from above 0) to 1."""
    parse_least = number(float, 0, open_end=open_end)

    def parse(text: str) -> float:
        value = parse_least(text)
        if value > 1:
            raise argparse.ArgumentTypeError(f"{text} is not at most 1")
        return value

    return parse
