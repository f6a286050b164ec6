"""What a reader must know before believing a benchmark: signs that robustness is only apparent.

After Athalye et al., "Obfuscated gradients give a false sense of security" (2018), and Carlini et al., "On evaluating
adversarial robustness" (2019).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from guard_plugin.attacks import Attack
from guard_plugin.attacks.balls import TOLERANCE
from guard_plugin.evaluation.engine import CLEAN, GRADIENTS, column_of_part
from guard_plugin.evaluation.records import Outcomes, Record
from guard_plugin.spaces import InputSpace

__all__ = ["find_warnings", "near_chance", "without_negatives"]

_NOTICED = 0.01  # of all examples: below this share, a sign may be chance
_NEAR_CHANCE, _AT_MOST = 0.5, 0.05  # how far above chance: this part of it, and no more than so much

Found = Iterator[tuple[str, str]]
"""Columns, each with a reason to doubt it."""


def find_warnings(
    records: Sequence[Mapping[str, Record]],
    attacks: Mapping[str, Attack],
    correct: Mapping[str, Outcomes],
    num_classes: int,
    of_subject: Iterable[tuple[str, str]] = (),
) -> list[dict[str, str]]:
    """Return {"column", "reason"} of each sign.

    ``records`` are per network, and all mappings by column; ``of_subject`` is what was found in what is measured.
    """
    found = [
        *of_subject,
        *near_chance(float(correct[CLEAN].mean()), num_classes),
        *_flat(records),
        *_outside(records, attacks),
        *_blind_is_better(records, attacks, correct),
        *_blind_part_is_better(records, attacks),
        *_rising(attacks, correct),
    ]
    return [{"column": column, "reason": reason} for column, reason in found]


def near_chance(accuracy: float, num_classes: int) -> Found:
    """Yield the column "clean", if its accuracy is next to that of chance."""
    if accuracy < 1 / num_classes + min(_NEAR_CHANCE / num_classes, _AT_MOST):
        yield (
            CLEAN,
            f"{100 * accuracy:.1f} % is next to chance ({100 / num_classes:.1f} %): is the normalization the one that "
            f"the network was trained with, and are the classes in the same order?",
        )


def without_negatives(images: Tensor, space: Callable[[], InputSpace]) -> Found:
    """Yield the column "clean", if no value is below 0 of images that are normalised or whitened: they may be pixels.

    Args:
        images: Distilled images, shape (n, channels, height, width).
        space: Returns their input space.
    """
    if float(images.min()) >= 0 > float(space().to_input(torch.zeros_like(images[:1])).min()):
        yield (
            CLEAN,
            "no value of the distilled images is below 0, as black is by the students' normalization: are they pixels "
            "in [0, 1] that nobody normalised? Then normalise them, or give them as pixels (--adapter plain)",
        )


def _flat(records: Sequence[Mapping[str, Record]]) -> Found:
    flat = [of[CLEAN].correct & ~of[GRADIENTS].correct for of in records if GRADIENTS in of]
    if np.any(flat):
        right = sum(int(of[CLEAN].correct.sum()) for of in records)
        yield (
            CLEAN,
            f"on {np.sum(flat)} of {right} examples that are classified correctly the loss has no gradient in any "
            f"pixel: the gradient is masked there, and gradient attacks say nothing; trust square",
        )


def _outside(records: Sequence[Mapping[str, Record]], attacks: Mapping[str, Attack]) -> Found:
    """Attacks that are reproduced with their faults are not audited, so this reports where they leave their ball."""
    for column, attack in attacks.items():
        farthest = max(of[column].farthest for of in records)
        if farthest > attack.eps.value + TOLERANCE:
            yield column, f"the attack left its ball: {attack.norm} distance {farthest:.4g} at eps {attack.eps.text}"


def _blind_is_better(
    records: Sequence[Mapping[str, Record]], attacks: Mapping[str, Attack], correct: Mapping[str, Outcomes]
) -> Found:
    for column, attack in attacks.items():
        seeing = [
            left
            for other, rival in attacks.items()
            if rival.ball == attack.ball
            for left in _left_by_gradients(records, other, rival)
        ]
        if seeing and (attack.transfer or not attack.whitebox) and attack.coupled is None:
            only = float((np.logical_and.reduce(seeing) & correct[CLEAN] & ~correct[column]).mean())
            if only > _NOTICED:
                yield (
                    column,
                    f"{100 * only:.1f} % of all examples fall to this attack, which does not see the model's "
                    f"gradients, and to no gradient attack in the same ball: a sign of masked gradients",
                )


def _left_by_gradients(records: Sequence[Mapping[str, Record]], column: str, attack: Attack) -> Iterator[Outcomes]:
    """Yield what an attack, or each of its parts, left by the model's gradients, at any class: none if it has none."""
    names = {column_of_part(column, part): part for part in attack.parts} or {column: attack}
    for name, part in names.items():
        if part.whitebox and not part.transfer and not part.targeted:
            yield np.stack([of[name].correct for of in records])


def _blind_part_is_better(records: Sequence[Mapping[str, Record]], attacks: Mapping[str, Attack]) -> Found:
    for column, attack in attacks.items():
        left = np.stack([of[CLEAN].correct for of in records])
        for part in attack.parts:
            correct = np.stack([of[column_of_part(column, part)].correct for of in records])
            only = float((left & ~correct).mean())
            if not part.whitebox and only > _NOTICED:
                yield (
                    column,
                    f"{100 * only:.1f} % of all examples fall to {part.name} alone, which does not see the model's "
                    f"gradients, and to none of the attacks before it that do: a sign of masked gradients",
                )
            left &= correct


def _rising(attacks: Mapping[str, Attack], correct: Mapping[str, Outcomes]) -> Found:
    for column, attack in attacks.items():
        for other, rival in attacks.items():
            alike = (attack.name, attack.norm) == (rival.name, rival.norm) and attack.eps.value < rival.eps.value
            rise = float(correct[other].mean() - correct[column].mean())
            if alike and rise > _NOTICED:
                yield other, f"accuracy is {100 * rise:.1f} points higher than at the smaller {attack.eps.text}"
