"""The fast adaptive boundary attack (Croce and Hein, 2020), run by pyautoattack."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.by_pyautoattack import (
    LIBRARY_NORMS,
    Attacked,
    TowardsTopClasses,
    pyautoattack_module,
)
from guard_plugin.attacks.norms import Norm
from guard_plugin.attacks.remaining import Round

__all__ = ["FABT"]


@dataclass(frozen=True)
class FABT(TowardsTopClasses):
    """Steps onto the linearised boundary to each target, for the nearest image beyond it; it starts at the image.

    It draws nothing. What it finds outside the ball does not count.
    """

    family: ClassVar[str] = "fab-t"
    constants: ClassVar[Mapping[str, Any]] = {"restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}

    def _rounds(self, attacked: Attacked) -> Iterator[Round]:
        fab = pyautoattack_module("fab_pt", self.family).FABAttack_PT(
            attacked.classifier, n_iter=self.steps, norm=LIBRARY_NORMS[self.norm], eps=self.eps.value, targeted=True
        )
        for rank in self._ranks(attacked.logits):
            yield partial(_run, fab, self, attacked, rank)


def _run(fab: Any, attack: FABT, attacked: Attacked, rank: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    pixels, labels = attacked.pixels[rows], attacked.labels[rows]
    fab.target_class = rank
    with torch.no_grad():
        images: Tensor = fab.attack_single_run(pixels, labels, is_targeted=True)
    inside = _distance(attack.norm, images - pixels) <= attack.eps.value
    return images, inside & (attacked.classifier.logits(images).argmax(1) != labels)


def _distance(norm: Norm, delta: Tensor) -> Tensor:
    """In float32, as in AutoAttack: what is inside by less than it loses is the same then."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else (flat**2).sum(1).sqrt()
