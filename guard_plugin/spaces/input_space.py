"""The spaces that hosts' networks take images in, and the maps between them and pixel space."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput

__all__ = ["InputSpace", "Normalization"]

_LARGEST_STD = 10  # of pixels in [0, 1] at most 1/2; networks that take other units have other factors

_CONTRADICTIONS = {
    True: "got --zca, but the host did not whiten these images, as its files tell: leave --zca out",
    False: "got --no-zca, but the images_zca_*.pt beside the images tell that the host ran with --zca: leave "
    "--no-zca out, or remove the images_zca_*.pt if they are not of this run",
}


class InputSpace(ABC):
    """An invertible, differentiable map between pixel space (values in [0, 1]) and what a network takes."""

    needs_fit: ClassVar[bool] = False
    """Whether the map must still be fitted on the data set's training images, by ``fitted``."""

    is_zca: ClassVar[bool] = False
    """Whether the map is a ZCA whitening."""

    @abstractmethod
    def to_input(self, pixels: Tensor) -> Tensor:
        """Map pixels of shape (n, channels, height, width) to the network's input space."""

    @abstractmethod
    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Map network inputs of shape (n, channels, height, width) to pixel space (values may leave [0, 1])."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the kind of map ("name") and its settings, for JSON."""

    def decided(self, zca: bool) -> "InputSpace":
        """Return this space, given that the user says whether the host ran with ``--zca``.

        Raises:
            UnusableInput: If that contradicts what the host's files tell.
        """
        if zca != self.is_zca:
            raise UnusableInput(_CONTRADICTIONS[zca])
        return self

    def fitted(self, training_pixels: Tensor) -> "InputSpace":
        """Return the map, fitted where needed on training images: shape (n, channels, height, width), in [0, 1]."""
        return self


@dataclass(frozen=True)
class Normalization(InputSpace):
    """The per-channel affine map between pixel space and a network's input: ``x = (pixel - mean) / std``.

    Args:
        mean: One finite number per channel, in pixel units (pixels are in [0, 1]).
        std: One finite number > 0 per channel.

    Raises:
        UnusableInput: If the numbers are others, or seem to be for pixels from 0 to 255.

    Example:
        >>> Normalization(mean=(0.5,), std=(0.25,)).to_input(torch.tensor([[[[0.0, 1.0]]]]))
        tensor([[[[-2.,  2.]]]])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != len(self.std) or not finite or not all(s > 0 for s in self.std):
            raise UnusableInput(
                f"expected a normalisation by finite numbers, as many means as standard deviations, all of these > 0; "
                f"got mean={self.mean}, std={self.std}"
            )
        if max(self.mean, default=0) > 1 or max(self.std, default=0) > _LARGEST_STD:
            raise UnusableInput(
                f"expected mean and std in units of pixels in [0, 1], got mean={self.mean}, std={self.std}, which seem "
                f"to be for pixels from 0 to 255: divide them by 255"
            )

    @classmethod
    def identity(cls, channels: int) -> "Normalization":
        """Return the map of a network that takes pixels as they are."""
        return cls((0.0,) * channels, (1.0,) * channels)

    def to_input(self, pixels: Tensor) -> Tensor:
        """Map pixels of shape (n, channels, height, width) to the network's input space."""
        return (pixels - self._shaped(self.mean, pixels)) / self._shaped(self.std, pixels)

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Map network inputs of shape (n, channels, height, width) to pixel space (values may leave [0, 1])."""
        return inputs * self._shaped(self.std, inputs) + self._shaped(self.mean, inputs)

    def describe(self) -> dict[str, Any]:
        """Return the means and standard deviations, for JSON."""
        return {"name": "per channel", "mean": list(self.mean), "std": list(self.std)}

    def _shaped(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.shape[1] != len(values):
            raise UnusableInput(f"expected images of {len(values)} channel(s), got shape {tuple(like.shape)}")
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.dim() - 2))
