"""Per-channel normalisation, which most hosts do."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.spaces.input_space import InputSpace
from guard_plugin.spaces.whitening import ZcaWhitening

__all__ = ["Normalization", "UndecidedZca"]


@dataclass(frozen=True)
class Normalization(InputSpace):
    """The per-channel affine map between pixel space and a network's input: ``x = (pixel - mean) / std``.

    Args:
        mean: One number per channel, in pixel units (pixels are in [0, 1]).
        std: One number > 0 per channel.

    Example:
        >>> Normalization(mean=(0.5,), std=(0.25,)).to_input(torch.tensor([[[[0.0, 1.0]]]]))
        tensor([[[[-2.,  2.]]]])
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

    def describe(self) -> dict[str, Any]:
        """The means and standard deviations, for JSON."""
        return {"name": "per channel", "mean": list(self.mean), "std": list(self.std)}

    def decided(self, zca: bool) -> InputSpace:
        """This map, which is no whitening."""
        if zca:
            raise UnusableInput("got --zca, but the host did not whiten these images, as its files tell: leave it away")
        return self

    def _shaped(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.shape[1] != len(values):
            raise UnusableInput(f"expected images of {len(values)} channel(s), got shape {tuple(like.shape)}")
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, *[1] * (like.dim() - 2))


@dataclass(frozen=True)
class UndecidedZca(InputSpace):
    """The space of images of which the files do not tell whether the host whitened them; the user has to say it.

    Args:
        otherwise: The space if it did not.
        reason: Why the files do not tell.
    """

    otherwise: Normalization
    reason: str

    def to_input(self, pixels: Tensor) -> Tensor:
        """Refuse: not decided yet."""
        raise UnusableInput(self._question)

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Refuse: not decided yet."""
        raise UnusableInput(self._question)

    def describe(self) -> dict[str, Any]:
        """Refuse: not decided yet."""
        raise UnusableInput(self._question)

    def decided(self, zca: bool) -> InputSpace:
        """What the user says."""
        return ZcaWhitening() if zca else self.otherwise

    @property
    def _question(self) -> str:
        return f"{self.reason}: say whether the host ran with --zca, by guard benchmark --zca or --no-zca"
