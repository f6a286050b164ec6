"""The spaces that hosts' networks take images in, and the maps between them and pixel space."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

__all__ = ["InputSpace"]


class InputSpace(ABC):
    """An invertible, differentiable map between pixel space (values in [0, 1]) and what a network takes."""

    @property
    def needs_fit(self) -> bool:
        """Whether the map is still to be fitted on the data set's training images, by ``fitted``."""
        return False

    @abstractmethod
    def to_input(self, pixels: Tensor) -> Tensor:
        """Map pixels of shape (n, channels, height, width) to the network's input space."""

    @abstractmethod
    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Map network inputs of shape (n, channels, height, width) to pixel space (values may leave [0, 1])."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The kind of map ("name") and its settings, for JSON."""

    @abstractmethod
    def decided(self, zca: bool) -> "InputSpace":
        """This space, given that the user says whether the host ran with ``--zca``.

        Raises:
            UnusableInput: If that contradicts what the host's files tell.
        """

    def fitted(self, training_pixels: Tensor) -> "InputSpace":
        """The map, fitted on the training images where it needs that.

        Args:
            training_pixels: Shape (n, channels, height, width), in [0, 1].
        """
        del training_pixels
        return self
