"""Networks that take pixels."""

from torch import Tensor, nn

from guard_plugin.spaces import InputSpace

__all__ = ["PixelModel"]


class PixelModel(nn.Module):
    """A network that takes pixels in [0, 1] and normalises or whitens them itself.

    Args:
        network: The network, which maps images in its own input space to logits.
        normalization: The map from pixel space to that space. If it is a module, it moves with this one.
    """

    def __init__(self, network: nn.Module, normalization: InputSpace) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels of shape (n, channels, height, width) in [0, 1] to logits of shape (n, classes)."""
        logits: Tensor = self.network(self.normalization.to_input(pixels))
        return logits
