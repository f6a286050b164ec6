"""Attacks and presets as users write them."""

import re
from collections.abc import Iterable

from guard_plugin.attacks.registry import PRESETS

__all__ = ["usual_attacks"]

_BEFORE_NUMBER = re.compile(r"^[-_](?=\d)")


def usual_attacks(spec: str, families: Iterable[str]) -> str:
    """Write a comma list of attacks and presets as ``parse_attacks`` reads it: "PGD-20, FGSM" is "pgd20,fgsm".

    Args:
        spec: The list, in any case, with or without a hyphen before an attack's number.
        families: The families that are known. What belongs to none of them stays as it is.
    """
    known = list(families)
    return ",".join(_usual(name.strip(), known) for name in spec.split(","))


def _usual(name: str, families: list[str]) -> str:
    written, at, radius = name.partition("@")
    lower = written.lower()
    if lower in PRESETS:
        return lower + at + radius
    family = max((one for one in families if lower.startswith(one.lower())), key=len, default=None)
    if family is None:
        return name
    # The parameters of other people's attacks may tell cases apart.
    parameters = (written if written.startswith(family) else lower)[len(family) :]
    return f"{family}{_BEFORE_NUMBER.sub('', parameters)}{at}{radius}"
