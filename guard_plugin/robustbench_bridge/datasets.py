"""Data for robustbench from what is on the disk: its own loaders of CIFAR download what they miss."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from guard_plugin.datasets import load_images
from guard_plugin.errors import UnusableInput

__all__ = ["CIFAR", "clean_loader", "corrupted_loader"]

# robustbench's member of the enum BenchmarkDataset, and our name.
CIFAR = {"cifar_10": "CIFAR10", "cifar_100": "CIFAR100"}


def clean_loader(data: ModuleType, dataset: str) -> Callable[[int | None, Path | str, Any], tuple[Tensor, Tensor]]:
    """A loader of clean test images that takes robustbench's arguments.

    Args:
        data: The module robustbench.data.
        dataset: Our name of the data set.
    """

    def load(n_examples: int | None, data_dir: Path | str, prepr: Any) -> tuple[Tensor, Tensor]:
        if prepr is not data.PREPROCESSINGS[None]:
            raise UnusableInput(f"preprocessing is for imagenet: {dataset} is measured at its own size, as it is")
        images = load_images(dataset, data_dir, "test", n_examples)
        return images.pixels, images.labels

    return load


def corrupted_loader(data: ModuleType, member: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """A loader of corrupted images that takes robustbench's arguments and leaves the reading to robustbench.

    Args:
        data: The module robustbench.data.
        member: The data set, of robustbench's enum BenchmarkDataset.
    """

    def load(
        n_examples: int, severity: int, data_dir: Path | str, shuffle: bool, corruptions: Sequence[str], prepr: Any
    ) -> tuple[Tensor, Tensor]:
        folder = Path(data_dir) / data.CORRUPTIONS_DIR_NAMES[member][data.ThreatModel.corruptions]
        for name in ("labels", *corruptions):
            if not (folder / f"{name}.npy").is_file():
                raise UnusableInput(
                    f"expected {folder / name}.npy, and it is not there. Nothing is downloaded here: put the files of "
                    f"{folder.name} (zenodo.org, record {data.ZENODO_CORRUPTIONS_LINKS[member][0]}) there first"
                )
        pixels, labels = data.load_corruptions_cifar(member, n_examples, severity, data_dir, corruptions, shuffle)
        if len(labels) != n_examples:
            raise UnusableInput(f"expected n_examples from 1 to {len(labels)}, which {folder} holds; got {n_examples}")
        return pixels, labels

    return load
