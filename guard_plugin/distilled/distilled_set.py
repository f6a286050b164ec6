"""What a host distilled, in one form for every host."""

from dataclasses import dataclass

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput

__all__ = ["DistilledSet", "Normalization"]


@dataclass(frozen=True)
class Normalization:
    """The per-channel affine map between pixel space and a network's input: ``x = (pixel - mean) / std``.

    Args:
        mean: One number per channel, in pixel units (pixels are in [0, 1]).
        std: One number > 0 per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise UnusableInput(
                f"a normalization needs as many means as standard deviations, all of these > 0: "
                f"got mean={self.mean}, std={self.std}"
            )

    def to_input(self, pixels: Tensor) -> Tensor:
        """Map pixels of shape (n, channels, height, width) to the network's input space."""
        return (pixels - self._shaped(self.mean, pixels)) / self._shaped(self.std, pixels)

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Map network inputs of shape (n, channels, height, width) to pixel space (values may leave [0, 1])."""
        return inputs * self._shaped(self.std, inputs) + self._shaped(self.mean, inputs)

    def _shaped(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.shape[1] != len(values):
            raise UnusableInput(f"expected images of {len(values)} channel(s), got shape {tuple(like.shape)}")
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.dim() - 2))


@dataclass(frozen=True)
class DistilledSet:
    """The few synthetic images that a host wrote, with their labels.

    Args:
        images: Shape (n, channels, height, width), float32, in the host's own input space: optimised
            images leave the pixel range, and the host trains its evaluation networks on them as they are.
        labels: Shape (n,), int64 class indices, or shape (n, classes), float32 class probabilities.
        num_classes: How many classes the labels speak of.
        normalization: The map from pixel space to the space of ``images``.
        dataset: The name of the data set that was distilled, where the file tells.
        arch: The name of the network that it was distilled with, where the file tells.

    Raises:
        UnusableInput: If shapes, types, labels or values do not fit together.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    normalization: Normalization
    dataset: str | None = None
    arch: str | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if any(part.layout != torch.strided or part.is_meta or part.is_quantized for part in (images, labels)):
            raise UnusableInput(
                "expected ordinary dense tensors as images and labels, got sparse, quantised or meta ones"
            )
        if images.dim() != 4 or not images.is_floating_point() or not len(images):
            raise UnusableInput(
                f"expected distilled images of shape (n, channels, height, width) in floating point, n >= 1; "
                f"got shape {tuple(images.shape)} of {images.dtype}"
            )
        if not bool(torch.isfinite(images).all()):
            raise UnusableInput("distilled images hold values that are not finite: the distillation diverged")
        if labels.dim() == 0 or len(labels) != len(images):
            raise UnusableInput(
                f"expected one label per distilled image, got labels of shape {tuple(labels.shape)} for {len(images)}"
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

    @property
    def images_per_class(self) -> float:
        """Number of images over number of classes ("IPC")."""
        return len(self.images) / self.num_classes

    def pixels(self) -> Tensor:
        """The images in pixel space, clipped to [0, 1]: for looking at, not for training on."""
        return self.normalization.to_pixels(self.images).clamp(0, 1)
