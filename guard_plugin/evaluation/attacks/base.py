"""What an attack is. Third parties subclass ``Attack`` and register the class as a plugin."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.attacks.audit import audit_examples
from guard_plugin.evaluation.attacks.eps import Eps
from guard_plugin.evaluation.models import check_labels, check_mode, check_pixels

__all__ = ["Attack", "Classifier"]

Classifier = Callable[[Tensor], Tensor]
"""Maps pixels of shape (n, channels, height, width) in [0, 1] to logits of shape (n, classes)."""


@dataclass(frozen=True)
class Attack(ABC):
    """An untargeted attack in the Linf ball, in pixel space.

    A subclass is a frozen dataclass whose fields are its parameters (JSON values). It sets ``family``, implements
    ``_perturb``, and overrides ``name`` and ``from_spec`` where a user chooses parameters in the name. The base checks
    what goes in and audits what comes out.

    Args:
        eps: Radius of the ball, in pixel units.
        seed: Source of the attack's random draws, in [0, 2**63).

    Raises:
        UnusableInput: If the seed is out of range.
    """

    family: ClassVar[str]
    norm: ClassVar[Literal["linf"]] = "linf"

    eps: Eps
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UnusableInput(f"expected a seed in [0, 2**63), got {self.seed}")

    @classmethod
    def from_spec(cls, suffix: str, *, eps: Eps, seed: int) -> "Attack":
        """Make the attack that a user named.

        Args:
            suffix: What follows the family in the name: "100" in "pgd100".
            eps: Radius of the ball.
            seed: Source of random draws.

        Returns:
            The attack.

        Raises:
            UnusableInput: If the suffix means nothing to this family.
        """
        if suffix:
            raise UnusableInput(f"attack {cls.family} takes no parameters in its name, got {cls.family + suffix!r}")
        return cls(eps=eps, seed=seed)

    @property
    def name(self) -> str:
        """The name that the attack has in specifications and results, without eps."""
        return self.family

    def settings(self) -> dict[str, Any]:
        """Every parameter, for JSON; eps as the text given and as a number."""
        parameters = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "eps"}
        return {"name": self.name, "norm": self.norm, "eps": self.eps.text, "eps_value": self.eps.value, **parameters}

    @final
    def __call__(self, model: nn.Module, pixels: Tensor, labels: Tensor, *, indices: Tensor) -> Tensor:
        """Attack a batch.

        Args:
            model: A deterministic classifier in pixel space, in eval mode. Its parameters need no gradients meanwhile;
                nothing about it is changed afterwards.
            pixels: Shape (n, channels, height, width), in [0, 1].
            labels: Shape (n,), int64: the true classes.
            indices: Shape (n,), int64: the examples' positions in the data set, which random draws hang on.

        Returns:
            Adversarial pixels of the same shape: the attack's last word on each example, fooling or not.

        Raises:
            UnusableInput: If the model or the batch is not as described.
            AuditFailure: If a returned example is not finite, outside [0, 1] or outside the ball.
        """
        check_mode(model)
        check_pixels(pixels)
        check_labels(labels, len(pixels))
        check_labels(indices, len(pixels), what="indices")
        pixels = pixels.detach()
        with _frozen(model), torch.enable_grad():
            adversarial = self._perturb(_checked(model, labels), pixels, labels, indices).detach()
        audit_examples(self.name, pixels, adversarial, self.eps.value)
        return adversarial

    @abstractmethod
    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """Return adversarial pixels for a batch that has been checked.

        The result for an example must depend on nothing but the classifier, the example and its index: derive random
        draws from (seed, index), for instance with ``uniform_per_example``, and never from a global generator.
        """


def _checked(model: nn.Module, labels: Tensor) -> Classifier:
    """The model, with a check of its output's shape against the labels."""
    highest = int(labels.max())

    def classify(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels)
        if logits.dim() != 2 or logits.shape[1] <= highest:
            raise UnusableInput(
                f"expected logits of shape (n, classes) for labels up to {highest}, got shape {tuple(logits.shape)}"
            )
        return logits

    return classify


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Spare the backward passes the gradients of the parameters."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
