"""Networks that take pixels, and what must hold for one before it is attacked."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from guard_plugin.datasets.image_set import check_pixels
from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import InputSpace

__all__ = ["PixelModel", "check_classifier", "check_mode", "device_of", "finite_logits"]

_MANY_LOGITS = 64  # logits: so many are not all in [0, 1] by chance


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


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's first parameter; the CPU if it has none."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_mode(model: nn.Module) -> None:
    """Refuse a model if it or one of its submodules is in training mode."""
    for name, module in model.named_modules():
        if module.training:
            where = f"its submodule {name!r}" if name else "it"
            raise UnusableInput(
                f"expected a model in eval mode, but {where} ({type(module).__name__}) is in training mode: "
                f"call model.eval() first"
            )


def check_classifier(model: nn.Module, pixels: Tensor) -> int:
    """Refuse a model that robustness cannot be measured on, after three forward passes.

    Args:
        model: A classifier in pixel space.
        pixels: Shape (n, channels, height, width): some of the images that the model will be measured on.

    Returns:
        The number of the model's classes.

    Raises:
        UnusableInput: If a submodule is in training mode, the pixels are not in [0, 1], or the logits have the wrong
            shape, are not finite, look like probabilities, differ between two passes, or depend on what else is in the
            batch; or the model does not compute in the pixels' precision.
    """
    check_mode(model)
    check_pixels(pixels)
    other = next((p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype != pixels.dtype), None)
    if other is not None:
        raise UnusableInput(f"expected a model in {pixels.dtype}, as the pixels are, got {other}: call model.float()")
    logits = finite_logits(model, pixels)
    if not torch.allclose(logits, finite_logits(model, pixels), rtol=1e-5, atol=1e-5):
        raise UnusableInput(
            "expected a deterministic model, but two passes over the same images gave different logits: "
            "a randomised model needs attacks that average over its randomness, which these do not"
        )
    half = pixels[: -(-len(pixels) // 2)]
    among_others = finite_logits(model, torch.cat([half, 1 - half]))[: len(half)]
    if not torch.allclose(logits[: len(half)], among_others, rtol=1e-3, atol=1e-3):
        raise UnusableInput(
            "expected each example's logits to depend on that example alone, but they change with what else is in the "
            "batch: BatchNorm without running statistics? Its robustness would depend on the batch size"
        )
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-4):
        raise UnusableInput(
            "expected logits, but each row of the model's output is >= 0 and sums to 1, as probabilities do: attacks "
            "on their cross entropy see next to no gradient; return what goes into the softmax"
        )
    if logits.numel() >= _MANY_LOGITS and 0 <= float(logits.min()) < float(logits.max()) <= 1:
        raise UnusableInput(
            "expected logits, but each of the model's outputs is in [0, 1], as a sigmoid's are: attacks on their cross "
            "entropy see little gradient; return what goes into the sigmoid"
        )
    return logits.shape[1]


def finite_logits(model: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Compute a model's logits for n images in pixel space, without a graph.

    Anything but finite logits of shape (n, classes >= 2) raises ``UnusableInput``.
    """
    with torch.no_grad():
        logits = model(pixels)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(pixels) or logits.shape[1] < 2:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UnusableInput(f"expected logits of shape ({len(pixels)}, classes >= 2) from the model, got {found}")
    if not bool(torch.isfinite(logits).all()):
        raise UnusableInput("expected finite logits, got NaN or infinity: the model's training has probably diverged")
    return logits
