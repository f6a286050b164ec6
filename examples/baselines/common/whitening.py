"""ZCA whitening, and the images that a network gets with or without it."""

from __future__ import annotations

import torch

from common.data import Split, get_dataset

EPS = 0.1


class ZCAWhitening:
    """The linear map that takes the correlations out of a set of images and stays as near to them as it can.

    With the covariance U diag(S) U^T of the images' pixels it is (x - mean) U diag(1 / sqrt(S + eps)) U^T: Krizhevsky,
    "Learning Multiple Layers of Features from Tiny Images", 2009, appendix A; eps bounds what little-used directions
    are magnified by. The covariance is the unbiased one, as in kornia's ZCAWhitening, which trajectory matching uses.
    """

    def __init__(self, images: torch.Tensor, eps: float = EPS) -> None:
        pixels = images.flatten(1)
        self._mean = pixels.mean(dim=0)
        centred = pixels - self._mean
        covariance = centred.T @ centred / (len(images) - 1)
        variances, directions = torch.linalg.eigh(covariance.double())
        scale = (variances.clamp(min=0) + eps).sqrt()
        self._whiten = (directions / scale @ directions.T).to(pixels.dtype)
        self._restore = (directions * scale @ directions.T).to(pixels.dtype)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return ((images.flatten(1) - self._mean) @ self._whiten).view_as(images)

    def inverse(self, whitened: torch.Tensor) -> torch.Tensor:
        """The images that were whitened."""
        return (whitened.flatten(1) @ self._restore + self._mean).view_as(whitened)


def get_inputs(name: str, data_path: str, zca: bool, device: str) -> tuple[Split, Split, ZCAWhitening | None]:
    """A data set as networks see it, on a device: normalised, or whitened by a map fitted on the training images."""
    splits = get_dataset(name, data_path, normalise=not zca)
    train, test = ((images.to(device), labels.to(device)) for images, labels in splits)
    if not zca:
        return train, test, None
    whitening = ZCAWhitening(train[0])
    return (whitening(train[0]), train[1]), (whitening(test[0]), test[1]), whitening
