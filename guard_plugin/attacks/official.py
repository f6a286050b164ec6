"""The attacks of the evaluation that GUARD's authors published, with its faults, run by the library that they used."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Criterion
from guard_plugin.attacks.randomness import example_generator
from guard_plugin.errors import UnusableInput
from guard_plugin.optional import require

__all__ = ["OfficialAutoAttack", "OfficialCW", "OfficialMIM", "OfficialPGD", "OfficialSquare", "chunk_seed"]

_TORCHATTACKS = "3.5.1"
# The wheel of torchattacks overwrites an installed robustbench with an incomplete copy.
_INSTALL = (
    f"pip install --no-deps torchattacks=={_TORCHATTACKS}, and pip install --no-deps --force-reinstall robustbench "
    f"after it where that is used"
)


@dataclass(frozen=True)
class OfficialAttack(Attack):
    """An attack of the authors' evaluation, in batches of 25, which they use at 10 images per class and more.

    Random draws that the authors do not seed are seeded here, so that a run can be repeated.
    """

    coupled: ClassVar[int | None] = 25
    # ``constants`` has the authors' choices, and the defaults of torchattacks that differ from AutoAttack's.

    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        if self.whitebox:
            # This refuses a model that no gradient passes through.
            classifier.gradient(pixels[:1], Criterion(labels[:1]).cross_entropy())
        cuda: Any = torch.cuda
        model, attacked = _Module(classifier, pixels), []
        for rows in torch.split(torch.arange(len(pixels)), self.coupled or len(pixels)):
            # Restore the generators of all devices, because torchattacks seeds them all.
            with torch.random.fork_rng(devices=range(cuda.device_count()) if cuda.is_initialized() else []):
                torch.random.manual_seed(chunk_seed(self.seed, int(indices[rows[0]])))
                attacked.append(self._attack_batch(model, pixels[rows], labels[rows]).detach())
        return torch.cat(attacked)

    @abstractmethod
    def _attack_batch(self, model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        """Attack one batch, drawing from torch's global generator as the authors do."""


class _RunByTorchAttacks(OfficialAttack):
    """An attack that the authors take from torchattacks."""

    def check_available(self) -> None:
        """Refuse the attack if torchattacks is not installed, or is installed in another version."""
        self._library()

    def _library(self) -> Any:
        library = require("torchattacks", needed_by=f"attack {self.family}", install=_INSTALL)
        if version("torchattacks") != _TORCHATTACKS:
            raise UnusableInput(
                f"attack {self.family} needs torchattacks {_TORCHATTACKS}, whose figures it reproduces, "
                f"and the installed one is {version('torchattacks')}: {_INSTALL}"
            )
        return library


@dataclass(frozen=True)
class OfficialPGD(_RunByTorchAttacks):
    """PGD with a random start, whose last iterate counts."""

    family: ClassVar[str] = "official-pgd"
    constants: ClassVar[Mapping[str, Any]] = {"steps": 100, "relative_alpha": 0.25}

    def _attack_batch(self, model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        eps, steps = self.eps.value, self.constants["steps"]
        attack = self._library().PGD(model, eps=eps, alpha=self.constants["relative_alpha"] * eps, steps=steps)
        return torch.as_tensor(attack(pixels, labels))


@dataclass(frozen=True)
class OfficialSquare(_RunByTorchAttacks):
    """Square with one window and one colour per query for the whole batch; torchattacks seeds it with 0."""

    family: ClassVar[str] = "official-square"
    whitebox: ClassVar[bool] = False
    constants: ClassVar[Mapping[str, Any]] = {"queries": 5000, "p_init": 0.8, "resc_schedule": True}

    def _attack_batch(self, model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        return torch.as_tensor(self._library().Square(model, eps=self.eps.value)(pixels, labels))


@dataclass(frozen=True)
class OfficialAutoAttack(_RunByTorchAttacks):
    """The AutoAttack of torchattacks, whose gradient attacks have 10 iterations where AutoAttack has 100."""

    family: ClassVar[str] = "official-autoattack"
    least_classes: ClassVar[int] = 10
    constants: ClassVar[Mapping[str, Any]] = {"steps": 10, "target_classes": 9, "queries": 5000, "resc_schedule": True}

    def _attack_batch(self, model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            self.check_classes(model(pixels[:1]).shape[1])
        # The authors' object takes one seed, from the clock, and starts from that seed again with every batch.
        attack = self._library().AutoAttack(model, eps=self.eps.value, seed=self.seed)
        return torch.as_tensor(attack(pixels, labels))


@dataclass(frozen=True)
class OfficialCW(_RunByTorchAttacks):
    """Carlini and Wagner's L2 attack with c = 1e-4, which ends after a few steps; it knows no ball and ignores eps."""

    family: ClassVar[str] = "official-cw"
    constants: ClassVar[Mapping[str, Any]] = {"c": 1e-4, "kappa": 0, "steps": 50, "lr": 0.01}

    def _attack_batch(self, model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        return torch.as_tensor(self._library().CW(model, **self.constants)(pixels, labels))


@dataclass(frozen=True)
class OfficialMIM(OfficialAttack):
    """The authors' own momentum method: steps of eps, with each gradient over the L1 norm of the batch's gradient."""

    family: ClassVar[str] = "official-mim"
    constants: ClassVar[Mapping[str, Any]] = {"steps": 20, "relative_alpha": 1.0, "decay": 1.0}

    def _attack_batch(self, model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        eps = self.eps.value
        images, momentum = pixels, torch.zeros_like(pixels)
        for _ in range(self.constants["steps"]):
            leaf = images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels), leaf)
            momentum = self.constants["decay"] * momentum + gradient / torch.linalg.vector_norm(gradient, 1)
            moved = images + self.constants["relative_alpha"] * eps * momentum.sign()
            images = moved.clamp(pixels - eps, pixels + eps).clamp(0, 1)
        return images


class _Module(nn.Module):
    """The classifier as a module with a parameter, from which torchattacks learns the device."""

    def __init__(self, classifier: Classifier, like: Tensor) -> None:
        super().__init__()
        self.place = nn.Parameter(like.new_empty(0), requires_grad=False)
        self._classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        return self._classifier(pixels)


def chunk_seed(seed: int, first_index: int) -> int:
    """Return the seed of a batch whose first example has the position ``first_index`` in the data set."""
    return int(example_generator(seed, first_index).integers(2**63))
