"""Training on many views of 8-bit images with a teacher's soft labels, as SRe2L and its kin do."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.students.eight_bit_images import EightBitImages
from guard_plugin.students.soft_labels import ClassLabels, LabelSource, StoredLabels
from guard_plugin.students.training import TrainingRecipe

__all__ = ["RelabelRecipe", "distillation_loss"]


@dataclass(frozen=True)
class RelabelRecipe(TrainingRecipe):
    """Training by AdamW and a cosine schedule, so that the student gives each view the teacher's classes.

    As ``train_FKD.py`` and ``train_KD.py`` in SRe2L/validate do with the options that are published beside them
    (``--cos -T 20 --mix-type cutmix``): the divergence is not multiplied by the temperature's square, and biases and
    normalisation layers do not decay. Stored labels bring views, batches and the number of epochs with them. Their
    ``--gradient-accumulation-steps 2`` is left out: each batch has one pass and one step, so that BatchNorm sees whole
    batches.

    Args:
        name: What the protocol calls the recipe.
        epochs: Passes over the distilled set, >= 1.
        learning_rate: The learning rate at the first epoch, > 0; it falls along half a cosine, epoch by epoch.
        weight_decay: AdamW's, of matrices and convolutions.
        batch_size: Images per step.
        temperature: Divides both networks' logits, > 0; without a teacher, 1 is taken.
        min_scale: The least part of an image's area in a crop, in (0, 1].
        labels: The source of the labels.
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
        self.check_numbers()
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UnusableInput(f"expected a temperature that is finite and > 0, got {self.temperature}")
        if not 0 < self.min_scale <= 1:
            raise UnusableInput(f"expected a least part of an image > 0 and <= 1, got {self.min_scale}")

    def with_labels(self, labels: LabelSource) -> "RelabelRecipe":
        """Return this recipe with other labels; stored ones bring their number of epochs and their batches."""
        if isinstance(labels, StoredLabels):
            return replace(self, labels=labels, epochs=labels.stored.epochs, batch_size=labels.stored.batch_size)
        return replace(self, labels=labels)

    def check(self, distilled: DistilledSet) -> None:
        """Refuse images that are not 8-bit images, and labels of other images."""
        EightBitImages(distilled)
        self.labels.check(distilled)

    def describe(self) -> dict[str, Any]:
        """Return every parameter that takes effect, and the source of the labels."""
        described = {one.name: getattr(self, one.name) for one in fields(self)}
        described |= {"temperature": self.temperature if self.labels.soft else 1.0, "labels": self.labels.describe()}
        described |= {"optimizer": "AdamW", "schedule": "cosine", "mix": "cutmix"}
        if isinstance(self.labels, StoredLabels):
            del described["min_scale"], described["mix"]  # the stored views have their own
        return described

    def fit(self, student: nn.Module, distilled: DistilledSet, epochs: Iterable[int]) -> None:
        """Train a student; views that are not stored are drawn from torch's global stream."""
        device = next(student.parameters()).device
        batches = self.labels.epochs(EightBitImages(distilled), self.batch_size, self.min_scale, device)
        optimizer = self._optimizer(student)
        for epoch, of_epoch in zip(epochs, batches):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            for inputs, labels in of_epoch:
                output, labels = student(inputs.to(device)), labels.to(device)
                if self.labels.soft:
                    loss = distillation_loss(output, labels, self.temperature)
                else:
                    loss = F.cross_entropy(output, labels)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def _optimizer(self, student: nn.Module) -> torch.optim.AdamW:
        decayed = [p for name, p in student.named_parameters() if "weight" in name and p.dim() > 1]
        others = [p for name, p in student.named_parameters() if not ("weight" in name and p.dim() > 1)]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)


def distillation_loss(output: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Compute the mean Kullback-Leibler divergence of a student's classes from its teacher's, in nats.

    Both logits have the shape (n, classes); the divergence is not multiplied by the temperature's square.
    """
    student, teacher = F.log_softmax(output / temperature, dim=1), F.softmax(logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean")
