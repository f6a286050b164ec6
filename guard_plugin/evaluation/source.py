"""The model that transferred attacks are made on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.datasets import ImageSet
from guard_plugin.files import file_sha256
from guard_plugin.networks.checkpoints import load_checkpoint
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import Normalization
from guard_plugin.spaces.usual import normalization_named, parse_normalization

__all__ = ["Source", "given_normalization"]


@dataclass(frozen=True)
class Source:
    """A checkpoint on which adversarial examples are made, to be tried on the models that are measured.

    Args:
        file: The checkpoint.
        arch: Its architecture.
        network: It, loaded, on the CPU.
        normalization: What its training fed it.
        device: Where to compute.
    """

    file: Path
    arch: str
    network: nn.Module
    normalization: Normalization
    device: torch.device

    @classmethod
    def read(cls, file: Path, arch: str, normalization: str | None, images: ImageSet, device: torch.device) -> "Source":
        """Load the checkpoint.

        Raises:
            UnusableInput: If it does not hold that network, or its normalisation cannot be told.
            UnsafeFile: If reading it would run code.
        """
        channels, height, width = images.pixels.shape[1:]
        network = load_checkpoint(
            file, arch, channels=channels, num_classes=images.num_classes, im_size=(height, width)
        )
        return cls(file, arch, network, given_normalization(normalization, images), device)

    def describe(self) -> dict[str, Any]:
        """What the numbers depend on, for JSON."""
        return {
            "sha256": file_sha256(self.file),
            "arch": self.arch,
            "normalization": self.normalization.describe(),
        }

    def pixel_model(self) -> nn.Module:
        """The network in pixel space, in eval mode, on its device."""
        return PixelModel(self.network, self.normalization).eval().to(self.device)


def given_normalization(text: str | None, images: ImageSet) -> Normalization:
    """What the user says that a checkpoint was fed, or else what is usual for the data set.

    Raises:
        UnusableInput: If the text is no normalisation, or none is usual.
    """
    if text is None:
        return normalization_named(images.name)
    return parse_normalization(text, images.pixels.shape[1])
