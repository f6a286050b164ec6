"""From the names that users write to attacks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from guard_plugin.attacks.apgd import APGDCE, APGDT
from guard_plugin.attacks.autoattack import AutoAttack
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.cw import CW
from guard_plugin.attacks.eps import Eps, parse_eps
from guard_plugin.attacks.fab import FABT
from guard_plugin.attacks.fgsm import FGSM
from guard_plugin.attacks.mim import MIM
from guard_plugin.attacks.norms import NORMS
from guard_plugin.attacks.official import (
    OfficialAutoAttack,
    OfficialCW,
    OfficialMIM,
    OfficialPGD,
    OfficialSquare,
)
from guard_plugin.attacks.pgd import PGD
from guard_plugin.attacks.presets import PRESETS
from guard_plugin.attacks.square import Square
from guard_plugin.errors import UnusableInput

__all__ = ["ATTACKS", "builtin_registry", "check_classes", "parse_attacks", "parse_radii"]

ATTACKS: tuple[type[Attack], ...] = (
    FGSM,
    PGD,
    MIM,
    APGDCE,
    APGDT,
    FABT,
    AutoAttack,
    Square,
    CW,
    OfficialPGD,
    OfficialSquare,
    OfficialAutoAttack,
    OfficialCW,
    OfficialMIM,
)
"""The attacks that guard-plugin brings."""


def builtin_registry() -> dict[str, type[Attack]]:
    """The attacks that guard-plugin brings, by family."""
    return {attack.family: attack for attack in ATTACKS}


def parse_radii(attacks: str, eps: Sequence[str | float] | None) -> list[Eps]:
    """Read the radii that a user gave; a preset has its own where none are given.

    Raises:
        UnusableInput: If there are none, or one is no radius.
    """
    if isinstance(eps, str):
        raise UnusableInput(f"expected a list of one eps or more, such as ['1/255'], got {eps!r}")
    without = [name for name in _names(attacks) if "@" not in name]
    if eps and not without:
        raise UnusableInput(f"every attack of {attacks!r} has a radius of its own: leave eps away")
    if eps or not without:
        return [parse_eps(one) for one in eps or []]
    preset = PRESETS.get(attacks.strip())
    if preset is None or preset.eps is None:
        raise UnusableInput(f"expected eps, such as 8/255, for {', '.join(without)}")
    return [parse_eps(preset.eps)]


def _names(spec: str) -> list[str]:
    """The names in a list, those of presets in their place."""
    listed = [name.strip() for name in spec.split(",") if name.strip()]
    return [one for name in listed for one in (PRESETS[name].attacks.split(",") if name in PRESETS else [name])]


def parse_attacks(spec: str, registry: Mapping[str, type[Attack]], eps: Sequence[Eps], seed: int = 0) -> list[Attack]:
    """Make the attacks of a list or a preset.

    Args:
        spec: A comma list of presets and names such as "fgsm,pgd100,pgd100-l2-targeted@0.5". A name is a family and
            what the family makes of the rest (where several families fit, the longest one counts), then perhaps a norm
            (-linf, -l2, -rms), -targeted and -transfer, then perhaps @ and a radius of its own.
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
        UnusableInput: If one does.
    """
    for attack in attacks.values():
        if num_classes < attack.least_classes:
            raise UnusableInput(
                f"attack {attack.name} needs {attack.least_classes} classes or more, and there are {num_classes}: "
                f"leave it out"
            )


def _attack(name: str, registry: Mapping[str, type[Attack]], eps: Eps, seed: int) -> Attack:
    plain, transfer = _without(name, "-transfer")
    plain, targeted = _without(plain, "-targeted")
    norm = next((norm for norm in NORMS if plain.endswith(f"-{norm}")), None)
    plain = plain.removesuffix(f"-{norm}")
    family = max((family for family in registry if plain.startswith(family)), key=len, default=None)
    if family is None:
        raise UnusableInput(
            f"unknown attack {name!r}: expected one of {', '.join(sorted(registry))} "
            f"(with parameters, such as pgd100 or pgd100-l2), or a preset: {', '.join(PRESETS)}"
        )
    attack = registry[family].from_spec(plain[len(family) :], eps=eps, seed=seed)
    return replace(attack, targeted=targeted, transfer=transfer, norm=norm or attack.norm)


def _without(name: str, ending: str) -> tuple[str, bool]:
    return name.removesuffix(ending), name.endswith(ending)
