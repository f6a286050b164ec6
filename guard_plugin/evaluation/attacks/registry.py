"""From the names that users write to attacks."""

from collections.abc import Mapping

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.attacks.base import Attack
from guard_plugin.evaluation.attacks.eps import Eps
from guard_plugin.evaluation.attacks.fgsm import FGSM
from guard_plugin.evaluation.attacks.pgd import PGD

__all__ = ["ATTACKS", "PRESETS", "builtin_registry", "parse_attacks"]

ATTACKS: tuple[type[Attack], ...] = (FGSM, PGD)
"""The attacks that guard-plugin brings."""

PRESETS: dict[str, str] = {"quick": "fgsm,pgd10"}
"""Named lists of attacks."""


def builtin_registry() -> dict[str, type[Attack]]:
    """The attacks that guard-plugin brings, by family."""
    return {attack.family: attack for attack in ATTACKS}


def parse_attacks(spec: str, registry: Mapping[str, type[Attack]], eps: Eps, seed: int = 0) -> list[Attack]:
    """Make the attacks of a list or a preset.

    Args:
        spec: A comma list of names, "fgsm,pgd100", or a preset. A name is a family and what the family makes of the
            rest; where several families fit, the longest one counts.
        registry: Attack classes by family.
        eps: Radius of the ball.
        seed: Source of random draws.

    Returns:
        The attacks, in the order given.

    Raises:
        UnusableInput: If the list is empty, or a name is unknown or given twice.
    """
    wanted = [name.strip() for name in PRESETS.get(spec.strip(), spec).split(",")]
    attacks = [_attack(name, registry, eps, seed) for name in wanted if name]
    names = [attack.name for attack in attacks]
    if not names or len(set(names)) < len(names):
        raise UnusableInput(f"expected a comma list of different attacks, such as fgsm,pgd100; got {spec!r}")
    return attacks


def _attack(name: str, registry: Mapping[str, type[Attack]], eps: Eps, seed: int) -> Attack:
    family = max((family for family in registry if name.startswith(family)), key=len, default=None)
    if family is None:
        raise UnusableInput(
            f"unknown attack {name!r}: expected one of {', '.join(sorted(registry))} "
            f"(with parameters, such as pgd100), or a preset: {', '.join(PRESETS)}"
        )
    return registry[family].from_spec(name[len(family) :], eps=eps, seed=seed)
