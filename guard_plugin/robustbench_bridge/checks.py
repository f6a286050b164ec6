"""What must hold where robustbench measures: of its files, before it begins, and of the model, as on our own path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from guard_plugin.attacks import Classifier, Criterion
from guard_plugin.errors import UnusableInput, few
from guard_plugin.files import existing_file
from guard_plugin.networks.pixel_model import check_classifier, finite_logits

__all__ = ["CLASSES", "check_class_folders", "check_corrupted_files", "checked_model"]

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
"""RobustBench's data sets, with their numbers of classes."""

_PER_SEVERITY = 10000  # images in each corrupted file of CIFAR
_SEVERITIES = 5


def check_corrupted_files(
    folder: Path, corruptions: Sequence[str], n_examples: int, num_classes: int, fix: str
) -> None:
    """Refuse missing, damaged and other files than those of CIFAR-10-C or CIFAR-100-C; only their heads are read.

    Args:
        folder: The folder that holds them.
        corruptions: The kinds that will be measured on.
        n_examples: The number of images per severity.
        num_classes: The number of classes, above all labels.
        fix: What the user can do about missing or damaged files.
    """
    labels = _array(folder / "labels.npy", fix)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UnusableInput(f"expected class indices in {folder / 'labels.npy'}, got {labels.dtype} of {labels.shape}")
    if len(labels) < n_examples:
        raise UnusableInput(f"expected n_examples from 1 to {len(labels)}, which {folder} holds; got {n_examples}")
    if not 0 <= labels[:n_examples].min() <= labels[:n_examples].max() < num_classes:
        raise UnusableInput(
            f"expected labels in [0, {num_classes}) in {folder / 'labels.npy'}: is it another data set's?"
        )
    least = _PER_SEVERITY * (_SEVERITIES - 1) + n_examples
    for name in corruptions:
        images = _array(folder / f"{name}.npy", fix)
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) < least:
            raise UnusableInput(
                f"expected {_SEVERITIES * _PER_SEVERITY} images of shape (32, 32, 3) in uint8 in {folder / name}.npy, "
                f"got {images.dtype} of {images.shape}: {fix}"
            )


def _array(file: Path, fix: str) -> Any:
    """Open an array without reading its values."""
    if not file.exists():
        raise UnusableInput(f"expected {file}, and it is not there: {fix}")
    try:
        return np.load(existing_file(file), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnusableInput(f"{file} is damaged, incomplete or no array of numbers ({error}): {fix}") from error


def check_class_folders(folders: Sequence[Path], classes: Iterable[str]) -> None:
    """Refuse folders that do not hold one folder for each class, and no other: their order numbers the classes."""
    wanted = set(classes)
    for folder in folders:
        if not folder.is_dir():
            raise UnusableInput(
                f"expected {folder}, and it is not there: nothing is downloaded here, put it there first"
            )
        found = {entry.name for entry in os.scandir(folder) if entry.is_dir()}
        problems = [
            f"{len(names)} are {what} ({few(sorted(names))})"
            for what, names in (("missing", wanted - found), ("none of these", found - wanted))
            if names
        ]
        if problems:
            raise UnusableInput(
                f"expected one folder for each of the {len(wanted)} classes in {folder}, as their order numbers the "
                f"classes: {'; '.join(problems)}"
            )


@contextmanager
def checked_model(evaluation: Any, num_classes: int, *, attacked: bool) -> Iterator[None]:
    """Have robustbench.eval refuse models that guard-plugin itself refuses.

    Before the first pass, the model is checked on the first images (``check_classifier``); and every output of which
    an accuracy is computed must be finite logits.

    Args:
        evaluation: The module robustbench.eval.
        num_classes: The number of classes of the data set.
        attacked: Whether the model is attacked with gradients.
    """
    measure = evaluation.clean_accuracy
    checked: list[nn.Module] = []

    def clean_accuracy(model: nn.Module, x: Tensor, y: Tensor, batch_size: int, device: torch.device) -> float:
        if not checked:
            _check(model, x[:batch_size].to(device), y[:batch_size].to(device), num_classes, attacked)
            checked.append(model)
        accuracy: float = measure(partial(finite_logits, model), x, y, batch_size=batch_size, device=device)
        return accuracy

    with patch.object(evaluation, "clean_accuracy", clean_accuracy):
        yield


def _check(model: nn.Module, pixels: Tensor, labels: Tensor, num_classes: int, attacked: bool) -> None:
    found = check_classifier(model, pixels)
    if found != num_classes:
        raise UnusableInput(
            f"expected logits for {num_classes} classes, got {found}: is the model for another data set?"
        )
    if attacked:
        classifier = Classifier(model, highest=num_classes - 1, batch_size=len(pixels))
        classifier.gradient(pixels, Criterion(labels).cross_entropy())
        classifier.check_gradients()
