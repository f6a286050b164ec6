"""Training on many views of 8-bit images with a teacher's soft labels, as SRe2L and its kin do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.students.eight_bit_images import MIXES, EightBitImages, ViewDrawing
from guard_plugin.students.soft_labels import ClassLabels, LabelSource, StoredLabels, TeacherLabels
from guard_plugin.students.training import TrainingRecipe, check_last_batch

__all__ = ["RelabelRecipe", "distillation_loss"]

_OPTIMIZERS = ("AdamW", "SGD")
_WARMUP_FROM = 0.01  # the part of the learning rate that a warm-up begins with
# What the class's defaults switch off. Records leave it out, as they did before it could be switched on.
_OFF_BY_DEFAULT = (
    "shift",
    "mix_alpha",
    "momentum",
    "warmup_epochs",
    "decay_all",
    "squared_temperature",
    "teacher_training",
)


@dataclass(frozen=True)
class RelabelRecipe(TrainingRecipe):
    """Training with a cosine schedule, so that the student gives each view the teacher's classes.

    The defaults are those of ``train_FKD.py`` and ``train_KD.py`` in SRe2L/validate with the options that are published
    beside them (``--cos -T 20 --mix-type cutmix``): AdamW, biases and normalisation layers do not decay, and the
    divergence is not multiplied by the temperature's square. Stored labels bring views, batches and the number of
    epochs with them. Their ``--gradient-accumulation-steps 2`` is left out: each batch has one pass and one step, so
    that BatchNorm sees whole batches.

    Args:
        name: What the protocol calls the recipe.
        epochs: Passes over the distilled set, >= 1.
        learning_rate: The learning rate at the first epoch, > 0; it falls along half a cosine, epoch by epoch.
        weight_decay: The optimizer's, of matrices and convolutions.
        batch_size: Images per step.
        temperature: Divides both networks' logits, > 0; without a teacher, 1 is taken.
        min_scale: The least part of an image's area in a crop, in (0, 1].
        shift: As ``ViewDrawing`` has it; 0 crops.
        mix: "cutmix", "mixup" or "none".
        mix_alpha: As ``ViewDrawing`` has it.
        optimizer: "AdamW" or "SGD".
        momentum: SGD's, >= 0.
        warmup_epochs: Epochs before the cosine, in which the learning rate rises linearly from a hundredth of it.
        decay_all: Whether biases and normalisation layers decay, too.
        squared_temperature: Whether the divergence is multiplied by the temperature's square.
        teacher_training: Whether a teacher at hand is in training mode, in which BatchNorm normalises by each batch.
        labels: The source of the labels.
        learning_rate_from_set: False.

    Raises:
        UnusableInput: If a value is out of its range.
    """

    name: str
    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    temperature: float
    min_scale: float
    shift: int = 0
    mix: str = "cutmix"
    mix_alpha: float = 1.0
    optimizer: str = "AdamW"
    momentum: float = 0.0
    warmup_epochs: int = 0
    decay_all: bool = False
    squared_temperature: bool = False
    teacher_training: bool = False
    labels: LabelSource = field(default_factory=ClassLabels)
    learning_rate_from_set: bool = False

    def __post_init__(self) -> None:
        self.check_numbers()
        for name in ("temperature", "mix_alpha"):
            if not getattr(self, name) > 0:
                raise UnusableInput(f"expected a {name} that is > 0, got {getattr(self, name)}")
        if not 0 < self.min_scale <= 1:
            raise UnusableInput(f"expected a min_scale, the least part of an image, > 0 and <= 1, got {self.min_scale}")
        for name, known in (("mix", MIXES), ("optimizer", _OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise UnusableInput(f"expected a {name} of {', '.join(known)}, got {getattr(self, name)!r}")

    def with_labels(self, labels: LabelSource) -> RelabelRecipe:
        """Return this recipe with other labels; stored ones bring their number of epochs and their batches."""
        if isinstance(labels, StoredLabels):
            return replace(self, labels=labels, epochs=labels.stored.epochs, batch_size=labels.stored.batch_size)
        return replace(self, labels=labels)

    def check(self, distilled: DistilledSet) -> None:
        """Refuse images that are not 8-bit images, and labels of other images, of fewer epochs or other batches."""
        EightBitImages(distilled)
        self.labels.check(distilled)
        if self.teacher_training and isinstance(self.labels, TeacherLabels):
            teacher = self.labels.in_training_mode()
            check_last_batch(lambda: teacher.answers, distilled, self.batch_size, who="the teacher, in training mode,")
        if isinstance(self.labels, StoredLabels):
            stored = self.labels.stored
            if self.epochs > stored.epochs or self.batch_size != stored.batch_size:
                raise UnusableInput(
                    f"expected at most {stored.epochs} epochs in batches of {stored.batch_size}, which is what "
                    f"{stored.folder} holds labels for, got epochs={self.epochs}, batch_size={self.batch_size}"
                )

    def describe(self) -> dict[str, Any]:
        """Return every parameter that takes effect, and the source of the labels."""
        idle = self._without_effect()
        described = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in idle}
        temperature = self.temperature if self.labels.soft else 1.0
        return {**described, "temperature": temperature, "labels": self.labels.describe(), "schedule": "cosine"}

    def _without_effect(self) -> set[str]:
        idle = {
            one.name for one in fields(self) if one.name in _OFF_BY_DEFAULT and getattr(self, one.name) == one.default
        }
        idle |= {"min_scale"} if self.shift else set()
        idle |= {"mix_alpha"} if self.mix == "none" else set()
        idle |= {"momentum"} if self.optimizer == "AdamW" else set()
        idle |= set() if self.labels.soft else {"squared_temperature"}
        idle |= set() if isinstance(self.labels, TeacherLabels) else {"teacher_training"}
        # Stored views have their own crops and mixtures.
        return idle | ({"min_scale", "shift", "mix", "mix_alpha"} if isinstance(self.labels, StoredLabels) else set())

    def fit(self, student: nn.Module, distilled: DistilledSet, epochs: Iterable[int]) -> None:
        """Train a student; views that are not stored are drawn from torch's global stream."""
        device = next(student.parameters()).device
        labels = self.labels.in_training_mode() if self.teacher_training else self.labels
        drawing = ViewDrawing(self.min_scale, self.shift, self.mix, self.mix_alpha)
        batches = labels.epochs(EightBitImages(distilled), self.batch_size, drawing, device)
        optimizer = self._optimizer(student)
        for epoch, of_epoch in zip(epochs, batches):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * self._schedule(epoch)
            for inputs, wanted in of_epoch:
                loss = self._loss(student(inputs.to(device)), wanted.to(device))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def _schedule(self, epoch: int) -> float:
        """Return the part of the learning rate in an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return _WARMUP_FROM + (1 - _WARMUP_FROM) * epoch / self.warmup_epochs
        return (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))) / 2

    def _loss(self, output: Tensor, labels: Tensor) -> Tensor:
        if not self.labels.soft:
            return F.cross_entropy(output, labels)
        loss = distillation_loss(output, labels, self.temperature)
        return loss * self.temperature**2 if self.squared_temperature else loss

    def _optimizer(self, student: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": list(student.parameters())}] if self.decay_all else self._groups(student)
        if self.optimizer == "SGD":
            return torch.optim.SGD(
                groups, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
            )
        return torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)

    def _groups(self, student: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters that decay, and those that do not."""
        decayed = [p for name, p in student.named_parameters() if "weight" in name and p.dim() > 1]
        others = [p for name, p in student.named_parameters() if not ("weight" in name and p.dim() > 1)]
        return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def distillation_loss(output: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Compute the mean Kullback-Leibler divergence of a student's classes from its teacher's, in nats.

    Both logits have the shape (n, classes); the divergence is not multiplied by the temperature's square.
    """
    student, teacher = F.log_softmax(output / temperature, dim=1), F.softmax(logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean")
