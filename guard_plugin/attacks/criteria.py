"""What an attack is after, on each example."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from guard_plugin.attacks.classifier import Loss

__all__ = ["Goal"]


@dataclass(frozen=True)
class Goal:
    """Away from the true class, or towards a target.

    Args:
        labels: Shape (n,), int64: the true classes.
        targets: Shape (n,), int64, in a targeted attack.
    """

    labels: Tensor
    targets: Tensor | None = None

    def reached(self, logits: Tensor) -> Tensor:
        """Shape (n,), bool: whether the model's choice is what the attack is after."""
        choice = logits.argmax(1)
        return choice != self.labels if self.targets is None else choice == self.targets

    def cross_entropy(self) -> Loss:
        """The loss to climb: the true class's cross entropy, or that of the target, negated."""
        if self.targets is None:
            labels = self.labels
            return lambda logits, rows: F.cross_entropy(logits, labels[rows], reduction="none")
        targets = self.targets
        return lambda logits, rows: -F.cross_entropy(logits, targets[rows], reduction="none")

    def margin(self, logits: Tensor) -> Tensor:
        """How far the model is from what the attack is after, shape (n,): below 0 where it is there.

        Untargeted, the true class's logit minus the highest other one; targeted, the highest other logit minus the
        target's (Carlini and Wagner, 2017, objective f6).
        """
        classes = self.labels if self.targets is None else self.targets
        own = logits.gather(1, classes[:, None])[:, 0]
        others = logits.scatter(1, classes[:, None], -torch.inf).amax(1)
        return own - others if self.targets is None else others - own

    def of(self, rows: Tensor) -> "Goal":
        """The goal for some of the examples, by place or by mask."""
        return Goal(self.labels[rows], None if self.targets is None else self.targets[rows])
