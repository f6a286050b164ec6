"""What an attack is after, for each example."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from guard_plugin.attacks.classifier import Loss
from guard_plugin.attacks.remaining import PerExample

__all__ = ["Criterion", "Goal"]


@dataclass(frozen=True)
class Criterion(PerExample):
    """Misclassification, or the choice of a target class.

    Args:
        labels: Shape (n,), int64: the true classes.
        targets: Shape (n,), int64: the target classes; None in an untargeted attack.
    """

    labels: Tensor
    targets: Tensor | None = None

    def reached(self, logits: Tensor) -> Tensor:
        """Return whether the model's choice meets the criterion, shape (n,), bool."""
        choice = logits.argmax(1)
        return choice != self.labels if self.targets is None else choice == self.targets

    def cross_entropy(self) -> Loss:
        """Return the loss to increase: the cross entropy of the true class, or minus that of the target class."""
        if self.targets is None:
            labels = self.labels
            return lambda logits, rows: F.cross_entropy(logits, labels[rows], reduction="none")
        targets = self.targets
        return lambda logits, rows: -F.cross_entropy(logits, targets[rows], reduction="none")

    def margin(self, logits: Tensor) -> Tensor:
        """Return how far the model is from meeting the criterion, shape (n,): below 0 where it meets the criterion.

        Untargeted, the margin is the true class's logit minus the highest other logit; targeted, it is the highest
        other logit minus the target's (Carlini and Wagner, 2017, objective f6).
        """
        classes = self.labels if self.targets is None else self.targets
        own = logits.gather(1, classes[:, None])[:, 0]
        others = logits.scatter(1, classes[:, None], -torch.inf).amax(1)
        return own - others if self.targets is None else others - own


Goal = Criterion
"""The former name of ``Criterion``, for plugins that import it."""
