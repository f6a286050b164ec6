"""The base class of all attacks. Third parties subclass ``Attack`` and register the class as a plugin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from guard_plugin.attacks.balls import Eps, Norm, audit_examples
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.attacks.criteria import Criterion
from guard_plugin.attacks.randomness import other_class_per_example
from guard_plugin.datasets.image_set import check_labels, check_pixels
from guard_plugin.errors import UnusableInput
from guard_plugin.networks.pixel_model import check_mode

__all__ = ["Attack", "parse_count"]


@dataclass(frozen=True)
class Attack(ABC):
    """An attack within a ball around each image, in pixel space.

    A subclass is a frozen dataclass whose fields are its parameters (JSON values). It sets ``family``, implements
    ``_perturb``, and overrides ``base_name`` and ``from_spec`` where a user chooses parameters in the name. The base
    class checks the examples before the attack, and audits the adversarial examples after it.

    Args:
        eps: Radius of the ball, in pixel units.
        seed: Source of the attack's random draws, in [0, 2**63).
        norm: Norm of the ball, one of ``norms``.
        targeted: Whether the attack aims at one wrong class per example, drawn from (seed, index), instead of at any.
        transfer: Whether the examples are made on another model, the source, than the one that is measured.

    Raises:
        UnusableInput: If a parameter is out of range, or the attack is not defined for it.
    """

    family: ClassVar[str]
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    """The norms that the attack is defined for. The attack's name leaves the first out; it is the field's default."""
    can_target: ClassVar[bool] = False
    """Whether the attack has a targeted form."""
    can_transfer: ClassVar[bool] = False
    """Whether the attack takes all its steps also after the source model is fooled, as a transferred attack must."""
    whitebox: ClassVar[bool] = True
    """Whether the attack uses the model's gradients."""
    constants: ClassVar[Mapping[str, Any]] = {}
    """Parameters that a user cannot choose, for results.json."""
    least_classes: ClassVar[int] = 2
    """How many classes the attack needs."""
    _at_least_1: ClassVar[Sequence[str]] = ()
    _above_0: ClassVar[Sequence[str]] = ()
    """The parameters that must be >= 1, and those that must be > 0."""
    coupled: ClassVar[int | None] = None
    """The fixed number of examples per batch, for an attack whose outcome on an example depends on the other examples
    of its batch; None for all others. A coupled attack is given all examples, also those that are misclassified
    without an attack, and an example counts as correct by the attacked image alone."""

    eps: Eps
    seed: int = 0
    norm: Norm = "linf"
    targeted: bool = False
    transfer: bool = False

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            raise UnusableInput(f"attack {self.family} is defined for {' and '.join(self.norms)}, got {self.norm}")
        if self.targeted and not self.can_target:
            raise UnusableInput(f"attack {self.family} has no targeted form: leave -targeted out")
        if self.transfer and not self.can_transfer:
            raise UnusableInput(
                f"attack {self.family} stops where the source is fooled, which says little about another model: "
                f"transfer an attack that takes all its steps, such as pgd100-transfer"
            )
        if self.norm != "l2" and self.eps.value > 1:
            raise UnusableInput(f"expected 0 < eps <= 1 in norm {self.norm}, for pixels in [0, 1], got {self.eps.text}")
        if not 0 <= self.seed < 2**63:
            raise UnusableInput(f"expected a seed in [0, 2**63), got {self.seed}")
        for name in self._at_least_1:
            if getattr(self, name) < 1:
                raise UnusableInput(f"expected {self.family} with {name} >= 1, got {getattr(self, name)}")
        for name in self._above_0:
            if not getattr(self, name) > 0:
                raise UnusableInput(f"expected {self.family} with {name} > 0, got {getattr(self, name)}")

    @classmethod
    def from_spec(cls, suffix: str, **common: Any) -> Attack:
        """Make the attack that a user named.

        Args:
            suffix: The part of the name after the family: "100" in "pgd100".
            common: Of the fields that every attack has, ``eps``, ``seed`` and those that the name says.

        Returns:
            The attack.

        Raises:
            UnusableInput: If the family does not know the suffix.
        """
        if suffix:
            raise UnusableInput(f"attack {cls.family} takes no parameters in its name, got {cls.family + suffix!r}")
        return cls(**common)

    def check_available(self) -> None:  # noqa: B027 - most attacks need no package
        """Raise UnusableInput, before anything is computed, if a package that the attack needs is not installed."""

    def check_classes(self, num_classes: int) -> None:
        """Raise UnusableInput if a model has fewer classes than ``least_classes``."""
        if num_classes < self.least_classes:
            needed = f"{self.least_classes} classes or more, and there are {num_classes}"
            raise UnusableInput(f"attack {self.name} needs {needed}: leave it out")

    @property
    def base_name(self) -> str:
        """The family, with the parameters that a user chooses in the name."""
        return self.family

    @final
    @property
    def name(self) -> str:
        """The name that the attack has in specifications and results, without eps: "pgd100-l2-targeted"."""
        parts = [self.base_name]
        parts += [self.norm] if self.norm != self.norms[0] else []
        parts += ["targeted"] if self.targeted else []
        parts += ["transfer"] if self.transfer else []
        return "-".join(parts)

    @property
    def ball(self) -> tuple[Norm, Eps]:
        """The norm and the radius of the ball."""
        return self.norm, self.eps

    @property
    def parts(self) -> Sequence[Attack]:
        """The attacks that this one runs in turn, each on the examples that remain; empty for a single attack."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Return every parameter, for results.json; eps is there as its text and as a number."""
        parameters = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "eps"}
        settings = {"name": self.name, "norm": self.norm, "eps": self.eps.text, "eps_value": self.eps.value}
        # In results.json, our classes keep the place that they had at first.
        place = f"{type(self).__module__}.{type(self).__qualname__}"
        place = place.replace("guard_plugin.attacks.", "guard_plugin.evaluation.attacks.", 1)
        settings |= {**parameters, **self.constants, "coupled": self.coupled, "class": place}
        return settings | ({"parts": [part.settings() for part in self.parts]} if self.parts else {})

    @final
    def __call__(
        self, model: nn.Module, pixels: Tensor, labels: Tensor, *, indices: Tensor, batch_size: int | None = None
    ) -> Tensor:
        """Attack some examples.

        Args:
            model: A deterministic classifier in pixel space, in eval mode. Its parameters are frozen during the call,
                and it is unchanged afterwards.
            pixels: Shape (n, channels, height, width), in [0, 1].
            labels: Shape (n,), int64: the true classes.
            indices: Shape (n,), int64: the examples' positions in the data set, which seed the random draws.
            batch_size: Examples per pass through the model, all by default.

        Returns:
            Adversarial pixels of the same shape: the attack's result for each example, whether it fools or not.

        Raises:
            UnusableInput: If the model or the batch is not as described, or the model's gradients are not finite.
            AuditFailure: If a returned example is not finite, outside [0, 1] or outside the ball.
        """
        check_mode(model)
        check_pixels(pixels)
        highest = check_labels(labels, len(pixels))
        check_labels(indices, len(pixels), what="indices")
        pixels = pixels.detach()
        classifier = Classifier(model, highest=highest, batch_size=batch_size or len(pixels))
        with _frozen(model):
            adversarial = self._perturb(classifier, pixels, labels, indices).detach()
        classifier.check_gradients()
        if self.coupled is None:
            audit_examples(self.name, pixels, adversarial, self.eps.value, self.norm)
        return adversarial

    @abstractmethod
    def _perturb(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """Return adversarial pixels for examples that have been checked.

        There may be more examples than fit through the model at once: see ``classifier.batch_size``. The result for
        an example must depend on nothing but the classifier, the example and its index: derive random draws from (seed,
        index), for instance with ``uniform_per_example``, and never from a global generator.
        """

    def goal(self, classifier: Classifier, pixels: Tensor, labels: Tensor, indices: Tensor) -> Criterion:
        """Return what the attack is after on these examples: any wrong class, or a target class for each."""
        if not self.targeted:
            return Criterion(labels)
        num_classes = classifier.logits(pixels[:1]).shape[1]
        return Criterion(labels, other_class_per_example(labels, num_classes, seed=self.seed, indices=indices))


def parse_count(family: str, suffix: str) -> int:
    """Return the number after the family in an attack's name, or refuse a suffix that is not a whole number."""
    if not (suffix.isascii() and suffix.isdecimal()):
        raise UnusableInput(f"expected {family} with its number of steps, such as {family}20; got {family + suffix!r}")
    return int(suffix)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Freeze the model's parameters, so that backward passes compute no gradients of them."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
