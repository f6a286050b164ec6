"""The measurement itself: a clean pass, then every attack on what was classified correctly.

An example counts for an attack's column when the model is right on it clean AND after the attack; so an example that is
wrong clean needs no attack.
"""

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from guard_plugin.evaluation.attacks import Attack
from guard_plugin.evaluation.costs import Cost, CountedModel
from guard_plugin.evaluation.datasets import ImageSet
from guard_plugin.evaluation.models import check_classifier, check_labels, finite_logits
from guard_plugin.evaluation.records import Record, RecordFolder

__all__ = ["CLEAN", "evaluate_model"]

CLEAN = "clean"


def evaluate_model(
    model: Callable[[], nn.Module],
    images: ImageSet,
    attacks: Mapping[str, Attack],
    *,
    batch_size: int,
    device: torch.device,
    records: RecordFolder | None = None,
) -> dict[str, Record]:
    """Measure one model, going on from what has been recorded.

    Args:
        model: Gives the classifier in pixel space, in eval mode, on ``device``; called only where something is left to
            measure.
        images: What to measure on.
        attacks: Attacks by column.
        batch_size: Examples per pass, >= 1. It changes speed and memory, and no result beyond float rounding.
        device: Where to compute.
        records: Finished columns, which are taken as they are and added to.

    Returns:
        A record per column, "clean" first.

    Raises:
        UnusableInput: If the model or the images cannot be measured on.
        AuditFailure: If an attack breaks its own bounds.
    """
    done: dict[str, Record] = {}
    classifier: nn.Module | None = None
    for column in (CLEAN, *attacks):
        record = records.get(column) if records else None
        if record is None:
            if classifier is None:
                classifier = _checked(model(), images, batch_size, device)
            record = _measure(classifier, images, attacks.get(column), done.get(CLEAN), batch_size, device)
            if records:
                records.put(column, record)
        done[column] = record
    return done


def _checked(classifier: nn.Module, images: ImageSet, batch_size: int, device: torch.device) -> nn.Module:
    num_classes = check_classifier(classifier, images.pixels[:batch_size].to(device))
    check_labels(images.labels, len(images.labels), num_classes)
    return classifier


def _measure(
    classifier: nn.Module,
    images: ImageSet,
    attack: Attack | None,
    clean: Record | None,
    batch_size: int,
    device: torch.device,
) -> Record:
    counted = CountedModel(classifier)
    begin = time.perf_counter()
    candidates = np.arange(len(images.labels)) if clean is None else np.flatnonzero(clean.correct)
    correct = np.zeros(len(images.labels), dtype=np.bool_)
    for batch in _batches(candidates, batch_size, attack.name if attack else CLEAN):
        pixels, labels = images.pixels[batch].to(device), images.labels[batch].to(device)
        if attack:
            pixels = attack(counted, pixels, labels, indices=batch)
        correct[batch.numpy()] = (finite_logits(counted, pixels).argmax(1) == labels).cpu().numpy()
    return Record(correct, Cost(time.perf_counter() - begin, counted.forwards, counted.backwards))


def _batches(indices: NDArray[np.int64], size: int, title: str) -> Iterator[Tensor]:
    if not len(indices):
        return
    yield from tqdm(torch.split(torch.from_numpy(indices), size), title, unit="batch", leave=False, disable=None)
