"""Distilled images and labels, in one form for every host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.names import spelled
from guard_plugin.spaces.input_space import InputSpace

__all__ = ["DistilledSet"]

_SUM_TOLERANCE = 1e-3  # of probabilities: labels may have been stored in half precision


@dataclass(frozen=True)
class DistilledSet:
    """The few synthetic images that a host wrote, with their labels.

    Args:
        images: Shape (n, channels, height, width), float32, in the host's own input space: optimised
            images leave the pixel range, and the host trains its evaluation networks on them as they are.
        labels: Shape (n,), int64 class indices, or shape (n, classes), float32 class probabilities.
        num_classes: The number of classes.
        normalization: The map from pixel space to the space of ``images``; a ``ZcaWhitening`` is fitted by the
            benchmark.
        dataset: The name of the data set that was distilled, where the file tells.
        arch: The name of the network that was used to distil it, where the file tells.
        learning_rate: The students' learning rate that was learned along with the images, > 0, where the file tells.
        recipe: The name of the recipe by which the host trains its evaluation networks.
        recipe_lacks: What the host does with its evaluation networks and the recipe does not, if anything.
        class_names: The names of the classes, in the order of their numbers, where folders give them.
        files: The files that the set was read from, where they are others than the one that the user named.
        input_spaces: Where the files do not tell the data set: the space in which the host's networks take its images,
            by data set; ``images`` are then pixels, and ``for_dataset`` brings them there.
        recipes: The names of recipes that go before ``recipe``, by data set; ``for_dataset`` takes the right one.

    Raises:
        UnusableInput: If shapes, types, labels or values do not fit together.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    normalization: InputSpace
    dataset: str | None = None
    arch: str | None = None
    learning_rate: float | None = None
    recipe: str = "dc"
    recipe_lacks: str = ""
    class_names: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    input_spaces: Mapping[str, InputSpace] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in (self.images, self.labels):
            if part.layout != torch.strided or part.is_meta or part.is_quantized:
                raise UnusableInput("expected dense tensors as images and labels, got sparse, quantised or meta ones")
        images, rate = self.images, self.learning_rate
        if images.dim() != 4 or not images.is_floating_point() or not len(images):
            raise UnusableInput(
                f"expected distilled images of shape (n, channels, height, width) in floating point, n >= 1; "
                f"got shape {tuple(images.shape)} of {images.dtype}"
            )
        if not bool(torch.isfinite(images).all()):
            raise UnusableInput("distilled images hold values that are not finite: the distillation diverged")
        self._check_labels()
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise UnusableInput(
                f"expected a learning rate that is finite and > 0, got {rate}: the distillation diverged"
            )

    def _check_labels(self) -> None:
        labels, n = self.labels, len(self.images)
        if labels.dim() == 0 or len(labels) != n:
            raise UnusableInput(
                f"expected one label per distilled image, got labels of shape {tuple(labels.shape)} for {n}"
            )
        if labels.dim() == 1 and labels.dtype == torch.int64:
            if int(labels.min()) < 0 or int(labels.max()) >= self.num_classes:
                raise UnusableInput(
                    f"expected labels in [0, {self.num_classes}), got {int(labels.min())} to {int(labels.max())}"
                )
        elif not (labels.dim() == 2 and labels.is_floating_point() and labels.shape[1] == self.num_classes):
            raise UnusableInput(
                f"expected labels of shape (n,) in int64 or (n, {self.num_classes}) in floating point; "
                f"got shape {tuple(labels.shape)} of {labels.dtype}"
            )
        elif not bool((labels >= 0).all() and ((labels.double().sum(1) - 1).abs() <= _SUM_TOLERANCE).all()):
            raise UnusableInput(
                f"expected soft labels that are class probabilities (>= 0, rows that sum to 1), got values from "
                f"{float(labels.min()):.4g} to {float(labels.max()):.4g}: if they are logits, take their softmax"
            )

    @property
    def images_per_class(self) -> float:
        """Number of images over number of classes ("IPC")."""
        return len(self.images) / self.num_classes

    @property
    def hard_labels(self) -> Tensor:
        """The class of each image, shape (n,), int64: where labels are soft, the likeliest one."""
        return self.labels if self.labels.dim() == 1 else self.labels.argmax(dim=1)

    def space(self, zca: bool | None) -> InputSpace:
        """Return the space of the images: by the files, or as the user says whether the host ran with ``--zca``."""
        return self.normalization if zca is None else self.normalization.decided(zca)

    def for_dataset(self, dataset: str) -> DistilledSet:
        """Return this set as the host's networks take it, given the data set that it was distilled from.

        Raises:
            UnusableInput: If the set needs to know, and its host is not known to have distilled that data set.
        """
        if not self.input_spaces:
            return self
        dataset = spelled(dataset, self.input_spaces)
        if dataset not in self.input_spaces:
            raise UnusableInput(
                f"expected a data set whose normalisation by this host is known: {', '.join(self.input_spaces)}; got "
                f"{dataset!r}; where that is a folder of one of them, add its name: --host-dataset ImageNet"
            )
        space = self.input_spaces[dataset]
        return replace(
            self,
            images=space.to_input(self.images),
            normalization=space,
            dataset=dataset,
            recipe=self.recipes.get(dataset, self.recipe),
            input_spaces={},
            recipes={},
        )

    def with_num_classes(self, num_classes: int | None) -> DistilledSet:
        """Return this set as one of so many classes, where the user says it; of the highest it may hold no image.

        Raises:
            UnusableInput: If that contradicts the labels.
        """
        return self if num_classes is None else replace(self, num_classes=num_classes)

    def pixels(self) -> Tensor:
        """Return the images in pixel space, clipped to [0, 1]: for looking at, not for training on."""
        return self.normalization.to_pixels(self.images).clamp(0, 1)
