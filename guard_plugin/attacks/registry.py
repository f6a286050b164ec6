"""The attacks by name, and the names that users write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from guard_plugin.attacks.apgd import APGDCE, APGDT
from guard_plugin.attacks.autoattack import AutoAttack
from guard_plugin.attacks.balls import NORMS, Eps, parse_eps
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.cw import CW
from guard_plugin.attacks.fab import FABT
from guard_plugin.attacks.fgsm import FGSM
from guard_plugin.attacks.mim import MIM
from guard_plugin.attacks.official import OfficialAutoAttack, OfficialCW, OfficialMIM, OfficialPGD, OfficialSquare
from guard_plugin.attacks.pgd import PGD
from guard_plugin.attacks.square import Square
from guard_plugin.errors import UnusableInput

__all__ = ["ATTACKS", "PRESETS", "builtin_registry", "check_classes", "parse_attacks", "parse_radii", "usual_attacks"]

_OFFICIAL = OfficialPGD, OfficialSquare, OfficialAutoAttack, OfficialCW, OfficialMIM

ATTACKS: tuple[type[Attack], ...] = (FGSM, PGD, MIM, APGDCE, APGDT, FABT, AutoAttack, Square, CW, *_OFFICIAL)
"""The attacks that guard-plugin brings."""


class Preset(NamedTuple):
    """A comma list of attacks, with the radius where a user gives none."""

    attacks: str
    eps: str


PRESETS: dict[str, Preset] = {
    "quick": Preset("fgsm,pgd10", "1/255"),
    "paper": Preset("pgd100,square,autoattack,cw,mim20", "1/255"),
    "guard-official": Preset("official-pgd,official-square,official-autoattack,official-cw,official-mim", "1/255"),
    "robustbench": Preset("autoattack", "8/255"),
}

_BEFORE_NUMBER = re.compile(r"^[-_](?=\d)")
_NORM = re.compile(r"-(l\d+)$")


def builtin_registry() -> dict[str, type[Attack]]:
    """Return the attacks that guard-plugin brings, by family."""
    return {attack.family: attack for attack in ATTACKS}


def usual_attacks(spec: str, families: Iterable[str]) -> str:
    """Write a comma list of attacks and presets as ``parse_attacks`` reads it: "PGD-20, FGSM" is "pgd20,fgsm".

    Args:
        spec: The list, in any case, with or without a hyphen before an attack's number.
        families: The families that are known. What belongs to none of them stays as it is.
    """
    known = list(families)
    return ",".join(_usual(name.strip(), known) for name in spec.split(","))


def parse_radii(attacks: str, eps: str | float | Sequence[str | float] | None) -> list[Eps]:
    """Read the radius or the radii that a user gave, or take the preset's radius where a user gave none.

    Raises:
        UnusableInput: If there is no radius, or one cannot be read.
    """
    if isinstance(eps, (str, int, float)):
        eps = [eps]
    names = _names(attacks)
    without = [name for name in names if "@" not in name]
    if eps and names and not without:  # no attacks at all are refused by parse_attacks
        raise UnusableInput(f"every attack of {attacks!r} has a radius of its own: leave eps out")
    if eps or not without:
        return [parse_eps(one) for one in eps or []]
    preset = PRESETS.get(attacks.strip())
    if preset is None:
        raise UnusableInput(
            f"expected eps for {', '.join(without)}: give --eps, such as 8/255, or a radius with each name, as in "
            f"{without[0]}@8/255; only a preset that stands alone ({', '.join(PRESETS)}) has a radius"
        )
    return [parse_eps(preset.eps)]


def parse_attacks(spec: str, registry: Mapping[str, type[Attack]], eps: Sequence[Eps], seed: int = 0) -> list[Attack]:
    """Make the attacks of a list or a preset.

    Args:
        spec: A comma list of presets and names such as "fgsm,pgd100,pgd100-l2-targeted@0.5". A name is a family and
            the parameters that the family reads from its name (where several families fit, the longest one counts),
            then optionally a norm (-linf, -l2, -rms), -targeted and -transfer, then optionally @ and a radius.
        registry: Attack classes by family.
        eps: Radii for all attacks that have none of their own.
        seed: Source of random draws.

    Returns:
        The attacks, in the order given, for one radius after the other.

    Raises:
        UnusableInput: If the list is empty, or a name is unknown or given twice.
    """
    wanted = _names(spec)
    if not wanted or len(set(wanted)) < len(wanted):
        raise UnusableInput(f"expected a comma list of different attacks, such as fgsm,pgd100; got {spec!r}")
    shared = [_attack(name, registry, one, seed) for one in eps for name in wanted if "@" not in name]
    own = [name.split("@", 1) for name in wanted if "@" in name]
    return shared + [_attack(name, registry, parse_eps(radius), seed) for name, radius in own]


def check_classes(attacks: Mapping[str, Attack], num_classes: int) -> None:
    """Refuse attacks that need more classes than there are.

    Raises:
        UnusableInput: If an attack needs more.
    """
    for attack in attacks.values():
        attack.check_classes(num_classes)


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


def _names(spec: str) -> list[str]:
    """Split a list into names, with the names of its presets in their place."""
    listed = [name.strip() for name in spec.split(",") if name.strip()]
    return [one for name in listed for one in (PRESETS[name].attacks.split(",") if name in PRESETS else [name])]


def _attack(name: str, registry: Mapping[str, type[Attack]], eps: Eps, seed: int) -> Attack:
    untransferred = name.removesuffix("-transfer")
    untargeted = untransferred.removesuffix("-targeted")
    norm = next((norm for norm in NORMS if untargeted.endswith(f"-{norm}")), None)
    plain = untargeted.removesuffix(f"-{norm}")
    family = max((family for family in registry if plain.startswith(family)), key=len, default=None)
    if family is None:
        raise UnusableInput(
            f"unknown attack {name!r}: expected one of {', '.join(sorted(registry))} "
            f"(with parameters, such as pgd100 or pgd100-l2), or a preset: {', '.join(PRESETS)}"
        )
    if unknown := _NORM.search(plain):
        norms = ", ".join(registry[family].norms)
        raise UnusableInput(f"attack {name!r}: expected a norm of {family} ({norms}), got {unknown[1]}")
    said = {"norm": norm, "targeted": untargeted != untransferred, "transfer": untransferred != name}
    common = {field: value for field, value in said.items() if value}  # the others are as the attack has them
    return registry[family].from_spec(plain[len(family) :], eps=eps, seed=seed, **common)
