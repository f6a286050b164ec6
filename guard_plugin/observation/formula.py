"""A number of losses, explained by the variables of the function that computes them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from itertools import combinations
from math import prod
from typing import Any

__all__ = ["explain", "numbers_of"]


def numbers_of(variables: Mapping[str, Any]) -> dict[str, int]:
    """Return the whole numbers among a function's variables, each with the expression that gives it from them.

    Those are whole numbers themselves, those of argparse's namespaces, and the lengths of data loaders.
    """
    found: dict[str, int] = {}
    for name, value in variables.items():
        if isinstance(value, Namespace):
            found.update((f"v[{name!r}].{key}", one) for key, one in vars(value).items() if _counts(one))
        elif _counts(value):
            found[f"v[{name!r}]"] = value
        elif type(value).__name__.endswith("DataLoader"):
            found[f"len(v[{name!r}])"] = len(value)
    return found


def explain(number: int, numbers: Mapping[str, int]) -> list[str]:
    """Return the shortest products, of up to three expressions, that give a number: more than one explain nothing.

    An argument plus 1, as a loop to its end makes, is an expression, too.
    """
    terms = [*numbers.items(), *((f"({name} + 1)", value + 1) for name, value in numbers.items() if "." in name)]
    for length in (1, 2, 3):
        chosen = (one for one in combinations(terms, length) if all(value > 1 for _, value in one))
        found = [" * ".join(name for name, _ in one) for one in chosen if prod(value for _, value in one) == number]
        if found:
            return found
    return []


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**6
