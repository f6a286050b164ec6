"""Images for robustbench from what is on the disk: its own loaders of CIFAR download what they miss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from guard_plugin.datasets import load_images
from guard_plugin.errors import UnusableInput

__all__ = ["CIFAR", "load_clean", "load_corrupted"]

CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""RobustBench's name of a data set -> guard-plugin's name."""


def load_clean(
    data: Any, dataset: str, n_examples: int | None, data_dir: Path | str, prepr: Any
) -> tuple[Tensor, Tensor]:
    """Load the clean test images of ``dataset``, guard-plugin's name, for the module robustbench.data."""
    if prepr is not data.PREPROCESSINGS[None]:
        raise UnusableInput(f"preprocessing is for imagenet: {dataset} is measured at its own size, as it is")
    images = load_images(dataset, data_dir, "test", n_examples)
    return images.pixels, images.labels


def load_corrupted(
    data: Any, member: Any, n_examples: int, severity: int, data_dir: Path | str, corruptions: Sequence[str], **_: Any
) -> tuple[Tensor, Tensor]:
    """Refuse missing files, which robustbench would download, and let robustbench.data read the corrupted images.

    ``member`` is the data set in robustbench's enum BenchmarkDataset.
    """
    folder = Path(data_dir) / data.CORRUPTIONS_DIR_NAMES[member][data.ThreatModel.corruptions]
    for name in ("labels", *corruptions):
        if not (folder / f"{name}.npy").is_file():
            raise UnusableInput(
                f"expected {folder / name}.npy, and it is not there. Nothing is downloaded here: put the files of "
                f"{folder.name} (zenodo.org, record {data.ZENODO_CORRUPTIONS_LINKS[member][0]}) there first"
            )
    pixels, labels = data.load_corruptions_cifar(member, n_examples, severity, data_dir, corruptions)
    if len(labels) != n_examples:
        raise UnusableInput(f"expected n_examples from 1 to {len(labels)}, which {folder} holds; got {n_examples}")
    return pixels, labels
