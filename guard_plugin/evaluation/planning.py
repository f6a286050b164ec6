"""The parts of a protocol that every benchmark has."""

from collections.abc import Mapping, Sequence
from typing import Any

from guard_plugin.attacks import PRESETS, Attack, builtin_registry, parse_attacks, parse_radii
from guard_plugin.datasets import ImageSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import attack_columns
from guard_plugin.evaluation.source import Source

__all__ = ["attack_protocol", "data_protocol", "planned_attacks"]


def planned_attacks(
    attacks: str, eps: Sequence[str | float] | None, registry: Mapping[str, type[Attack]] | None
) -> dict[str, Attack]:
    """The attacks by column.

    Raises:
        UnusableInput: If the list or a radius is unusable, or the package of an attack is not installed.
    """
    # The draws have seed 0 for every student: starts in common make students and arms comparable.
    columns = attack_columns(parse_attacks(attacks, registry or builtin_registry(), parse_radii(attacks, eps)))
    for attack in columns.values():
        for one in (attack, *attack.parts):
            one.check_available()
    return columns


def data_protocol(images: ImageSet, split: str) -> dict[str, Any]:
    """What is measured on, for results.json."""
    return {
        "dataset": images.name,
        "split": split,
        "n_examples": len(images.labels),
        "data_sha256": images.sha256,
    }


def attack_protocol(attacks: str, columns: Mapping[str, Attack], source: Source | None) -> dict[str, Any]:
    """How it is attacked, for results.json.

    Raises:
        UnusableInput: If an attack needs a source and there is none, or the other way round.
    """
    transferred = [column for column, attack in columns.items() if attack.transfer]
    if bool(transferred) != (source is not None):
        needed = f"{', '.join(transferred)} need a source model" if transferred else "no attack is transferred"
        raise UnusableInput(f"{needed}: --source and attacks such as pgd100-transfer go together")
    return {
        "preset": attacks.strip() if attacks.strip() in PRESETS else None,
        "attacks": [attack.settings() for attack in columns.values()],
        **({"source": source.describe()} if source else {}),
    }
