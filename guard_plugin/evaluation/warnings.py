"""What a reader must know before believing a benchmark: signs that robustness is only apparent.

After Athalye et al., "Obfuscated gradients give a false sense of security" (2018), and Carlini et al., "On evaluating
adversarial robustness" (2019).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guard_plugin.attacks import Attack
from guard_plugin.attacks.balls import TOLERANCE
from guard_plugin.evaluation.engine import CLEAN, Measurement
from guard_plugin.evaluation.records import Flags

__all__ = ["flags_of"]

# Shares of all examples below which a sign may be chance.
_NOTICED = 0.01

_NEAR_CHANCE = 1.5  # times chance


def flags_of(
    students: Sequence[Measurement],
    attacks: Mapping[str, Attack],
    correct: Mapping[str, Flags],
    num_classes: int,
) -> list[dict[str, Any]]:
    """Find the signs.

    Args:
        students: What was measured.
        attacks: Attacks by column.
        correct: Column -> shape (students, examples).
        num_classes: Of the data set.

    Returns:
        A list of {"column", "reason"}; empty where nothing is suspicious.
    """
    found = [
        *_chance(correct[CLEAN], num_classes),
        *_flat(students),
        *_outside(students, attacks),
        *_blind_is_better(attacks, correct),
        *_rising(attacks, correct),
    ]
    return [{"column": column, "reason": reason} for column, reason in found]


def _chance(clean: Flags, num_classes: int) -> list[tuple[str, str]]:
    accuracy = float(clean.mean())
    if accuracy >= _NEAR_CHANCE / num_classes:
        return []
    return [
        (
            CLEAN,
            f"{100 * accuracy:.1f} % is next to chance ({100 / num_classes:.1f} %): is the normalization the one that "
            f"the network was trained with, and are the classes in the same order?",
        )
    ]


def _flat(students: Sequence[Measurement]) -> list[tuple[str, str]]:
    flat = [student.flat for student in students if student.flat is not None]
    n = int(np.sum(flat))
    if not n:
        return []
    right = int(sum(student.records[CLEAN].correct.sum() for student in students))
    return [
        (
            CLEAN,
            f"on {n} of {right} examples that are classified correctly the loss has no gradient in any pixel: the "
            f"gradient is masked there, and gradient attacks say nothing; trust square",
        )
    ]


def _outside(students: Sequence[Measurement], attacks: Mapping[str, Attack]) -> list[tuple[str, str]]:
    """Attacks that are reproduced with their faults are not audited, but told of."""
    farthest = {column: max(student.records[column].farthest for student in students) for column in attacks}
    return [
        (column, f"the attack left its ball: {attack.norm} distance {farthest[column]:.4g} at eps {attack.eps.text}")
        for column, attack in attacks.items()
        if farthest[column] > attack.eps.value + TOLERANCE
    ]


def _blind_is_better(attacks: Mapping[str, Attack], correct: Mapping[str, Flags]) -> list[tuple[str, str]]:
    found = []
    for column, attack in attacks.items():
        seeing = [
            correct[other]
            for other, rival in attacks.items()
            if rival.whitebox and not rival.transfer and rival.ball == attack.ball and not rival.parts
        ]
        if seeing and (attack.transfer or not attack.whitebox) and attack.coupled is None:
            only = float((np.logical_and.reduce(seeing) & correct[CLEAN] & ~correct[column]).mean())
            if only > _NOTICED:
                found.append((column, _BLIND.format(100 * only)))
    return found


_BLIND = (
    "{:.1f} % of all examples fall to this attack, which does not see the model's gradients, and to no gradient attack "
    "in the same ball: a sign of masked gradients"
)


def _rising(attacks: Mapping[str, Attack], correct: Mapping[str, Flags]) -> list[tuple[str, str]]:
    found = []
    for column, attack in attacks.items():
        for other, rival in attacks.items():
            alike = (attack.name, attack.norm) == (rival.name, rival.norm) and attack.eps.value < rival.eps.value
            rise = float(correct[other].mean() - correct[column].mean())
            if alike and rise > _NOTICED:
                found.append(
                    (other, f"accuracy is {100 * rise:.1f} points higher than at the smaller {attack.eps.text}")
                )
    return found
