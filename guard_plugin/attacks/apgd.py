"""Auto-PGD (Croce and Hein, 2020), run by pyautoattack."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.randomness import normal_per_example, uniform_per_example
from guard_plugin.attacks.rounds import Examples, RunByPyAutoAttack, TowardsTopClasses

__all__ = ["APGDCE", "APGDT"]


class _AutoPGD(RunByPyAutoAttack):
    """The runs that both forms of the attack share."""

    # pyautoattack warns of zero gradients, per batch, on standard error.
    library_options: ClassVar[Mapping[str, Any]] = {
        "logger": logging.Logger("guard_plugin.pyautoattack", logging.CRITICAL + 1)
    }
    constants: ClassVar[Mapping[str, Any]] = {"restarts": 1, "rho": 0.75, "eot_iter": 1}

    def _run(self, library: Any, classifier: Classifier, rank: int, examples: Examples) -> tuple[Tensor, Tensor]:
        pixels = examples.pixels
        if rank:
            library.y_target = examples.logits.sort(dim=1).indices[:, -rank]
        library.init_hyperparam(pixels)
        # AutoAttack makes a start from uniform numbers in [-1, 1), or from normal ones.
        draw = uniform_per_example if self.norm == "linf" else normal_per_example
        draws = draw(pixels, seed=self.seed, indices=examples.indices, stream=rank)
        start = pixels + self.eps.value * library.normalize(draws)
        # pyautoattack draws a start of its own also where it is given one.
        with torch.random.fork_rng(devices=[pixels.device] if pixels.device.type == "cuda" else []):
            _, right, _, images = library.attack_single_run(pixels, examples.labels, x_init=start)
        return images.detach(), right == 0


@dataclass(frozen=True)
class APGDCE(_AutoPGD):
    """Gradient steps on the cross entropy from one random start; a step is halved where it makes no progress."""

    family: ClassVar[str] = "apgd-ce"
    constants: ClassVar[Mapping[str, Any]] = {**_AutoPGD.constants, "loss": "cross entropy"}
    library_class: ClassVar[tuple[str, str]] = ("autopgd_base", "APGDAttack")


@dataclass(frozen=True)
class APGDT(_AutoPGD, TowardsTopClasses):
    """Auto-PGD on the targeted difference of logits ratio, from one random start for each target.

    The ratio divides by differences of the four largest logits, and so the attack needs four classes.
    """

    family: ClassVar[str] = "apgd-t"
    least_classes: ClassVar[int] = 4
    constants: ClassVar[Mapping[str, Any]] = {**_AutoPGD.constants, "loss": "targeted difference of logits ratio"}
    library_class: ClassVar[tuple[str, str]] = ("autopgd_base", "APGDAttack_targeted")
