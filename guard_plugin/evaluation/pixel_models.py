"""Networks from checkpoints, as classifiers of pixels."""

from pathlib import Path

from guard_plugin.datasets import ImageSet
from guard_plugin.networks.checkpoints import load_checkpoint
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import InputSpace, Normalization
from guard_plugin.spaces.usual import normalization_named, parse_normalization

__all__ = ["given_normalization", "load_pixel_model"]


def load_pixel_model(file: Path, arch: str, space: InputSpace, images: ImageSet) -> PixelModel:
    """Load the network of a checkpoint and let it take pixels.

    Args:
        file: The checkpoint.
        arch: The architecture of its network.
        space: The input space that the network was trained in.
        images: The images that the network must fit, in shape and classes.

    Returns:
        The network in pixel space, in eval mode, on the CPU.

    Raises:
        UnusableInput: If the file does not hold such a network.
        UnsafeFile: If reading the file would run code.
    """
    channels, height, width = images.pixels.shape[1:]
    network = load_checkpoint(file, arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))
    return PixelModel(network, space).eval()


def given_normalization(text: str | None, images: ImageSet) -> Normalization:
    """Return the normalization that a user named, or else the one that is usual for the data set.

    Raises:
        UnusableInput: If the text is no normalization, or none is usual.
    """
    if text is None:
        return normalization_named(images.name)
    return parse_normalization(text, images.pixels.shape[1])
