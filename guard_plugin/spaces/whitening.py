"""ZCA whitening, as the MTT family of hosts does with ``--zca``.

With covariance ``C = V diag(s) V^T`` (unbiased) and mean m of the real training images, flattened, in pixel space::

    x = (pixel - m) @ T        T = V diag((s + eps)^(-1/2)) V^T        pixel = x @ T^(-1) + m

(kornia's ``ZCAWhitening(eps=0.1, compute_inv=True)``, which the hosts call in ``get_dataset``.) The hosts fit in
float32; here it is float64, cast to float32 at the end, which is more accurate and differs by float32's rounding.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnusableInput
from guard_plugin.spaces.input_space import InputSpace, Normalization

__all__ = ["UndecidedZca", "Whitening", "ZcaWhitening"]

_CHUNK = 1000  # images: bounds the memory, and fixes the order of summation


class _UnsettledSpace(InputSpace):
    """A space whose map is not known yet: every use of it raises ``UnusableInput`` with its question."""

    @property
    @abstractmethod
    def question(self) -> str:
        """What is not known, and how to settle it."""

    def to_input(self, pixels: Tensor) -> NoReturn:
        raise UnusableInput(self.question)

    def to_pixels(self, inputs: Tensor) -> NoReturn:
        raise UnusableInput(self.question)

    def describe(self) -> dict[str, Any]:
        raise UnusableInput(self.question)


@dataclass(frozen=True)
class UndecidedZca(_UnsettledSpace):
    """The space of images of which the files do not tell, for a ``reason``, whether the host whitened them.

    The user has to say it; ``otherwise`` is the space if the host did not.
    """

    otherwise: Normalization
    reason: str

    @property
    def question(self) -> str:
        """Why the files do not tell, and how the user can."""
        return f"{self.reason}: say whether the host ran with --zca, by guard benchmark --zca or --no-zca"

    def decided(self, zca: bool) -> InputSpace:
        """Return the space that the user's answer means."""
        return ZcaWhitening() if zca else self.otherwise


@dataclass(frozen=True)
class ZcaWhitening(_UnsettledSpace):
    """A whitening that is not fitted yet: hosts save whitened images, but not the matrix that whitened them.

    Args:
        eps: Added to the covariance's eigenvalues, > 0; in squared pixel units.
    """

    eps: float = 0.1

    needs_fit = True
    is_zca = True
    question = (
        "these images are ZCA-whitened, and the whitening is not known before it is fitted on real training images, as "
        "guard benchmark does; in Python, take ZcaWhitening().fitted(training_pixels) as normalization"
    )

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise UnusableInput(f"expected eps > 0 for a whitening, got {self.eps}")

    def describe(self) -> dict[str, Any]:
        """Return the eps, for JSON."""
        return {"name": "zca", "eps": self.eps}

    def fitted(self, training_pixels: Tensor) -> "Whitening":
        """Fit mean and covariance, deterministically, on all images that the host trains on.

        Args:
            training_pixels: Shape (n >= 2, channels, height, width), in [0, 1].

        Raises:
            UnusableInput: If there are fewer than two images.
        """
        n = len(training_pixels)
        if training_pixels.dim() != 4 or n < 2:
            shape = tuple(training_pixels.shape)
            raise UnusableInput(f"expected images of shape (n >= 2, channels, height, width), got shape {shape}")
        chunks = torch.split(training_pixels.flatten(1), _CHUNK)
        mean = torch.stack([chunk.double().sum(0) for chunk in chunks]).sum(0) / n
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
        for chunk in chunks:
            centred = chunk.double() - mean
            covariance.addmm_(centred.T, centred)
        values, vectors = torch.linalg.eigh(covariance / (n - 1))
        roots = (values.clamp(min=0) + self.eps).sqrt()  # rounding leaves eigenvalues just below 0
        matrix, inverse = (vectors / roots) @ vectors.T, (vectors * roots) @ vectors.T
        return Whitening(mean.view(training_pixels.shape[1:]).float(), matrix.float(), inverse.float(), eps=self.eps)


class Whitening(nn.Module, InputSpace):
    """A fitted whitening: ``x = (pixel - mean) @ matrix``, on images flattened in the order channel, row, column.

    A module without parameters, so that ``.to(device)`` of the model that holds it moves the matrices.

    Args:
        mean: Shape (channels, height, width), in pixel units.
        matrix: Shape (d, d) for d = channels * height * width.
        inverse: Shape (d, d), the inverse of ``matrix``.
        eps: What was added to the eigenvalues.

    Raises:
        UnusableInput: If the shapes do not fit together.
    """

    is_zca = True
    mean: Tensor
    matrix: Tensor
    inverse: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor, inverse: Tensor, *, eps: float) -> None:
        super().__init__()
        wanted = (mean.numel(), mean.numel())
        if mean.dim() != 3 or matrix.shape != wanted or inverse.shape != wanted:
            raise UnusableInput(
                f"expected a mean of shape (c, h, w) and matrices of shape (c h w, c h w), got shapes "
                f"{tuple(mean.shape)}, {tuple(matrix.shape)} and {tuple(inverse.shape)}"
            )
        self.register_buffer("mean", mean.detach())
        self.register_buffer("matrix", matrix.detach())
        self.register_buffer("inverse", inverse.detach())
        self.eps = eps

    def to_input(self, pixels: Tensor) -> Tensor:
        """Whiten pixels of shape (n, channels, height, width)."""
        self._check(pixels)
        return ((pixels - self.mean.to(pixels)).flatten(1) @ self.matrix.to(pixels)).view_as(pixels)

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Undo the whitening of inputs of shape (n, channels, height, width)."""
        self._check(inputs)
        return (inputs.flatten(1) @ self.inverse.to(inputs)).view_as(inputs) + self.mean.to(inputs)

    def describe(self) -> dict[str, Any]:
        """Return the eps, for JSON."""
        return ZcaWhitening(self.eps).describe()

    def _check(self, images: Tensor) -> None:
        if images.shape[1:] != self.mean.shape:
            shape = ", ".join(map(str, self.mean.shape))
            raise UnusableInput(f"expected images of shape (n, {shape}), as in the fit, got {tuple(images.shape)}")
