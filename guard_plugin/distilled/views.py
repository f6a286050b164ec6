"""What a network sees of a batch of images: crops, mirror images, mixtures."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Mix", "View"]


@dataclass(frozen=True)
class Mix:
    """How each image of a batch is mixed with another one of the same batch.

    Args:
        order: Shape (n,), int64: for each image, the number in the batch of the one that is mixed in.
        own: The image's own weight in a mixture of the whole images (mixup: Zhang et al., ICLR 2018), in [0, 1].
        box: First row, first column, and the row and column after the last, of the rectangle that comes from the
            other image (CutMix: Yun et al., ICCV 2019); None mixes whole images.
    """

    order: Tensor
    own: float
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class View:
    """What a network sees of a batch of n images.

    Args:
        crops: Shape (n, 4): top, left, height and width of each crop, as parts of the image's height and width; it is
            enlarged to the size of the image.
        flips: Shape (n,), bool: which crops are mirrored, left to right.
        mix: How the crops are then mixed, if they are.
    """

    crops: Tensor
    flips: Tensor
    mix: Mix | None = None
