"""The model as attacks see it: its output is checked, and its passes have a bounded size."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from guard_plugin.attacks.pooling import FastPooling
from guard_plugin.errors import UnusableInput
from guard_plugin.versions import strict_zip

__all__ = ["PASS_UNIT", "Classifier", "Loss"]

PASS_UNIT = 8
"""Every pass is filled up to a multiple of so many examples.

A matrix product rounds an example's logits differently in a batch of 1 or 2 than in one of 16, which is enough to send
an attack of thousands of steps another way. In multiples of 8, an example's logits and gradients are the same to the
last bit, whatever else is in the batch (measured on CPUs; on a GPU, up to rounding).
"""

_PART_PLACES = 16 * 32 * 32
"""How many places (height times width) a CPU passes at once, in whole ``PASS_UNIT``s: what the layers of larger passes
return fits no cache, and malloc may give its memory back each time. Then 96 images of 3x32x32 take up to twice as long
in one pass. Passes without a graph, which free each layer's input at once, are three times as large. The channels of
the images do not count: the layers have others."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits of shape (n, classes) and rows of shape (n,), the examples' places in the call, to n losses."""


class Classifier:
    """A model in pixel space whose parameters need no gradients.

    Args:
        model: Maps pixels of shape (n, channels, height, width) in [0, 1] to logits of shape (n, classes).
        highest: The highest label; the logits must have a column for it.
        batch_size: Examples per pass, >= 1; the attribute of this name is rounded up to a multiple of ``PASS_UNIT``.
    """

    def __init__(self, model: nn.Module, *, highest: int, batch_size: int) -> None:
        self._model = model
        self._highest = highest
        self._pools_fast = FastPooling.serves(model)
        self._finite: Tensor | None = None  # on its device: no pass waits for it
        self.batch_size = -(-batch_size // PASS_UNIT) * PASS_UNIT

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits of all examples, whatever ``batch_size`` is, with a graph where gradients are on.

        They are in the pixels' precision, whatever the model's are in: attacks compute with both.

        Raises:
            UnusableInput: If the model's output is not logits for the labels.
        """
        parts = torch.split(pixels, _part(pixels))
        return self._logits(pixels) if len(parts) == 1 else torch.cat([self._logits(part) for part in parts])

    def _logits(self, pixels: Tensor) -> Tensor:
        with FastPooling() if self._pools_fast and pixels.device.type == "cpu" else nullcontext():
            logits: Tensor = self._model(_filled(pixels))
        if logits.dim() != 2 or logits.shape[1] <= self._highest:
            expected = f"expected logits of shape (n, classes) for labels up to {self._highest}"
            raise UnusableInput(f"{expected}, got shape {tuple(logits.shape)}")
        return logits[: len(pixels)].to(pixels.dtype)

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits without a graph, computed in passes of ``batch_size``."""
        return torch.cat([self(part) for part in torch.split(pixels, self.batch_size)])

    def gradient(self, pixels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the logits and the gradient of each example's loss, computed in passes of ``batch_size``.

        Args:
            pixels: Shape (n, channels, height, width).
            loss: The loss to differentiate.

        Returns:
            Logits, shape (n, classes), without a graph; gradients, in the shape of ``pixels``. No ``.grad`` is touched.

        Raises:
            UnusableInput: If the logits do not depend on the pixels in a differentiable way. Gradients that are not
                finite are refused by :meth:`check_gradients`.
        """
        size = min(self.batch_size, _part(pixels))
        places = torch.arange(len(pixels), device=pixels.device)
        passes = strict_zip(torch.split(pixels, size), torch.split(places, size))
        logits, gradients = strict_zip(*(self._pass(part, rows, loss) for part, rows in passes))
        return torch.cat(logits), torch.cat(gradients)

    def _pass(self, pixels: Tensor, rows: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        leaf = pixels.detach().requires_grad_()
        with torch.enable_grad():
            logits = self(leaf)
            # The sum, not the mean: an example's gradient must not depend on how many share its batch.
            total = loss(logits, rows).sum()
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True) if total.requires_grad else (None,)
        if gradient is None:
            raise UnusableInput(
                "no gradient reaches the pixels: the model detaches them or runs without gradients; "
                "a gradient attack would report robustness that the model does not have"
            )
        finite = gradient.isfinite().all()
        self._finite = finite if self._finite is None else self._finite & finite
        return logits.detach(), gradient

    def check_gradients(self) -> None:
        """Raise UnusableInput if a gradient that :meth:`gradient` returned was not finite: attacks stop there."""
        if self._finite is not None and not bool(self._finite):
            raise UnusableInput(
                "expected finite gradients of the model's loss for the pixels, got NaN or infinity: the model has no "
                "slope somewhere (a root, a logarithm or a norm at 0?), and a gradient attack would report robustness "
                "that it does not have; make it smooth there, sqrt(x + 1e-12), or attack it with square alone"
            )


def _part(pixels: Tensor) -> int:
    """Return how many of the examples to pass at once."""
    if pixels.device.type != "cpu":
        return max(len(pixels), 1)
    places = _PART_PLACES if torch.is_grad_enabled() else 3 * _PART_PLACES
    return max(places // pixels.shape[2:].numel() // PASS_UNIT, 1) * PASS_UNIT


def _filled(pixels: Tensor) -> Tensor:
    """Fill the batch up to a multiple of ``PASS_UNIT`` with copies of its last example."""
    missing = -len(pixels) % PASS_UNIT
    return torch.cat([pixels, pixels[-1:].detach().expand(missing, *pixels.shape[1:])]) if missing else pixels
