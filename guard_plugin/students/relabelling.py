"""How SRe2L and its kin train students: on many views of the pictures, with a teacher's soft labels."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.students.pictures import Pictures
from guard_plugin.students.soft_labels import ClassLabels, LabelSource, StoredLabels, ViewSettings
from guard_plugin.students.training import TrainingRecipe

__all__ = ["RelabelRecipe", "distillation_loss"]


@dataclass(frozen=True)
class RelabelRecipe(TrainingRecipe):
    """Training by AdamW and a cosine, to give each view the teacher's classes.

    As ``train_FKD.py`` and ``train_KD.py`` in SRe2L/validate do with the options that are published beside them
    (``--cos -T 20 --mix-type cutmix``): the divergence is not multiplied by the temperature's square, and biases and
    normalisation layers do not decay. Stored labels bring views, batches and the number of epochs with them. Left out
    is their ``--gradient-accumulation-steps 2``: one pass and one step per batch, so that BatchNorm sees whole batches.

    Args:
        name: What the protocol calls it.
        epochs: Passes over the distilled set, >= 1.
        learning_rate: At the first epoch, > 0; it falls along half a cosine, epoch by epoch.
        weight_decay: AdamW's, of matrices and convolutions.
        batch_size: Images per step.
        temperature: Divides both networks' logits, > 0; without a teacher, 1 is taken.
        min_scale: The least part of an image's area in a crop, in (0, 1].
        labels: Where labels come from.
        learning_rate_from_set: False.

    Raises:
        UnusableInput: If a number is out of its range.
    """

    name: str
    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    temperature: float
    min_scale: float
    labels: LabelSource = field(default_factory=ClassLabels)
    learning_rate_from_set: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UnusableInput(
                f"expected a recipe of at least one epoch and one image per batch, "
                f"got epochs={self.epochs}, batch_size={self.batch_size}"
            )
        for what, value, most in (
            ("learning rate", self.learning_rate, math.inf),
            ("temperature", self.temperature, math.inf),
            ("least part of an image", self.min_scale, 1),
        ):
            if not (math.isfinite(value) and 0 < value <= most):
                raise UnusableInput(f"expected a {what} that is finite, > 0 and <= {most}, got {value}")

    def with_learning_rate(self, learning_rate: float) -> "RelabelRecipe":
        """This recipe with another learning rate."""
        return replace(self, learning_rate=learning_rate)

    def with_labels(self, labels: LabelSource) -> "RelabelRecipe":
        """This recipe with labels from there; with stored ones, as many epochs as are stored, in batches as stored."""
        if isinstance(labels, StoredLabels):
            stored = labels.stored
            return replace(self, labels=labels, epochs=stored.epochs, batch_size=stored.batch_size)
        return replace(self, labels=labels)

    def check(self, distilled: DistilledSet) -> None:
        """Refuse images that are no pictures, and labels of others."""
        Pictures(distilled)
        self.labels.check(distilled)

    def describe(self) -> dict[str, Any]:
        """Every parameter that has a part in it, and where labels come from."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        told |= {"temperature": self._temperature, "labels": self.labels.describe(), "optimizer": "AdamW"}
        told |= {"schedule": "cosine", "mix": "cutmix"}
        if isinstance(self.labels, StoredLabels):
            del told["min_scale"], told["mix"]  # the stored views' own
        return told

    def fit(self, student: nn.Module, distilled: DistilledSet, epochs: Iterable[int]) -> None:
        """Train a student; views are drawn from torch's global stream, where they are not stored."""
        device = next(student.parameters()).device
        settings = ViewSettings(self.batch_size, self.min_scale)
        shown = self.labels.epochs(distilled, Pictures(distilled), settings, device)
        optimizer = self._optimizer(student)
        for epoch, batches in zip(epochs, shown, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            for batch in batches:
                loss = self._loss(student(batch.inputs.to(device)), batch.labels.to(device))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    @property
    def _temperature(self) -> float:
        return self.temperature if self.labels.soft else 1.0

    def _loss(self, output: Tensor, labels: Tensor) -> Tensor:
        if self.labels.soft:
            return distillation_loss(output, labels, self._temperature)
        return F.cross_entropy(output, labels)

    def _optimizer(self, student: nn.Module) -> torch.optim.AdamW:
        decayed = [p for name, p in student.named_parameters() if "weight" in name and p.dim() > 1]
        others = [p for name, p in student.named_parameters() if not ("weight" in name and p.dim() > 1)]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)


def distillation_loss(output: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """The mean Kullback-Leibler divergence of a student's classes from its teacher's.

    Args:
        output: Shape (n, classes): the student's logits.
        logits: The teacher's, of the same shape.
        temperature: Divides both.

    Returns:
        A scalar >= 0, in nats; not multiplied by the temperature's square.
    """
    student, teacher = F.log_softmax(output / temperature, dim=1), F.softmax(logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean")
