"""The spaces that hosts' networks take images in, and the maps between them and pixel space."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NoReturn

from torch import Tensor

from guard_plugin.errors import UnusableInput

__all__ = ["InputSpace", "UnsettledSpace"]

_CONTRADICTIONS = {
    True: "got --zca, but the host did not whiten these images, as its files tell: leave --zca away",
    False: "got --no-zca, but the images_zca_*.pt beside the images tell that the host ran with --zca: leave "
    "--no-zca away, or remove the images_zca_*.pt if they are not of this run",
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
        """Return the map, fitted on the training images where it needs that.

        Args:
            training_pixels: Shape (n, channels, height, width), in [0, 1].
        """
        del training_pixels
        return self


class UnsettledSpace(InputSpace):
    """A space whose map is not known yet: every use of it raises ``UnusableInput`` with its question."""

    @property
    @abstractmethod
    def question(self) -> str:
        """What is not known, and how to settle it."""

    def to_input(self, pixels: Tensor) -> NoReturn:
        """Refuse, with the question."""
        raise UnusableInput(self.question)

    def to_pixels(self, inputs: Tensor) -> NoReturn:
        """Refuse, with the question."""
        raise UnusableInput(self.question)
