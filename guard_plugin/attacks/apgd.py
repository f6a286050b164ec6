"""Auto-PGD (Croce and Hein, 2020), run by pyautoattack."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from guard_plugin.attacks.by_pyautoattack import (
    LIBRARY_NORMS,
    Attacked,
    RunByPyAutoAttack,
    TowardsTopClasses,
    pyautoattack_module,
)
from guard_plugin.attacks.norms import Norm
from guard_plugin.attacks.randomness import example_generator
from guard_plugin.attacks.remaining import Round
from guard_plugin.errors import UnusableInput

__all__ = ["APGDCE", "APGDT", "check_targetable"]

# pyautoattack warns of zero gradients, per batch, on standard error.
_SILENT = logging.Logger("guard_plugin.pyautoattack", logging.CRITICAL + 1)


_CONSTANTS = {"restarts": 1, "rho": 0.75, "eot_iter": 1}


@dataclass(frozen=True)
class APGDCE(RunByPyAutoAttack):
    """Gradient steps on the cross entropy whose length halves where they bring nothing; one random start."""

    family: ClassVar[str] = "apgd-ce"
    constants: ClassVar[Mapping[str, Any]] = {**_CONSTANTS, "loss": "cross entropy"}

    def _rounds(self, attacked: Attacked) -> Iterator[Round]:
        apgd = pyautoattack_module("autopgd_base", self.family).APGDAttack(
            attacked.classifier, n_iter=self.steps, norm=LIBRARY_NORMS[self.norm], eps=self.eps.value, logger=_SILENT
        )
        yield partial(_run, apgd, self, attacked, 0)


@dataclass(frozen=True)
class APGDT(TowardsTopClasses):
    """Auto-PGD on the targeted difference of logits ratio; one random start for each target."""

    family: ClassVar[str] = "apgd-t"
    least_classes: ClassVar[int] = 4
    constants: ClassVar[Mapping[str, Any]] = {**_CONSTANTS, "loss": "targeted difference of logits ratio"}

    def _rounds(self, attacked: Attacked) -> Iterator[Round]:
        check_targetable(self.family, attacked.logits)
        apgd = pyautoattack_module("autopgd_base", self.family).APGDAttack_targeted(
            attacked.classifier, n_iter=self.steps, norm=LIBRARY_NORMS[self.norm], eps=self.eps.value, logger=_SILENT
        )
        for rank in self._ranks(attacked.logits):
            yield partial(_run_towards, apgd, self, attacked, rank)


def check_targetable(family: str, logits: Tensor) -> None:
    """Refuse models that the targeted difference of logits ratio is not defined for.

    Raises:
        UnusableInput: If there are fewer than four classes.
    """
    if logits.shape[1] < APGDT.least_classes:
        raise UnusableInput(
            f"attack {family} needs {APGDT.least_classes} classes or more, got {logits.shape[1]}: its targeted loss "
            f"divides by differences of the four largest logits. Use apgd-ce, fab-t and square instead"
        )


def _run_towards(apgd: Any, attack: APGDT, attacked: Attacked, rank: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    apgd.y_target = attacked.class_ranked(rank, rows)
    return _run(apgd, attack, attacked, rank, rows)


def _run(apgd: Any, attack: RunByPyAutoAttack, attacked: Attacked, stream: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    pixels = attacked.pixels[rows]
    apgd.init_hyperparam(pixels)
    draws = _draws(attack.norm, pixels, attack.seed, attacked.indices[rows], stream)
    start = pixels + attack.eps.value * apgd.normalize(draws)
    # It draws a start of its own also where one is given.
    with torch.random.fork_rng(devices=[pixels.device] if pixels.device.type == "cuda" else []):
        _, right, _, images = apgd.attack_single_run(pixels, attacked.labels[rows], x_init=start)
    return images.detach(), right == 0


def _draws(norm: Norm, pixels: Tensor, seed: int, indices: Tensor, stream: int) -> Tensor:
    """For each example, what AutoAttack draws a start from: uniform in [-1, 1), or normal."""
    generators = [example_generator(seed, index, stream) for index in indices.tolist()]
    shape = pixels.shape[1:]
    if norm == "linf":
        drawn = [2 * random.random(shape, dtype=np.float32) - 1 for random in generators]
    else:
        drawn = [random.standard_normal(shape, dtype=np.float32) for random in generators]
    return torch.from_numpy(np.stack(drawn)).to(pixels.device, pixels.dtype)
