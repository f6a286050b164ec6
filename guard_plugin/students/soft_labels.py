"""Labels of views: a teacher's stored answers, the answers of a teacher at hand, or the images' own classes."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guard_plugin.distilled import DistilledSet, FkdLabels, Mix, StoredBatch, View
from guard_plugin.errors import UnusableInput
from guard_plugin.files import file_sha256
from guard_plugin.networks.weights import load_weights
from guard_plugin.spaces import InputSpace
from guard_plugin.students.eight_bit_images import EightBitImages, ViewDrawing, draw_view

__all__ = ["ClassLabels", "Epochs", "LabelSource", "Spaces", "StoredLabels", "TeacherLabels", "label_source"]

Epochs = Iterator[Iterator[tuple[Tensor, Tensor]]]
"""Batches, epoch by epoch: inputs of shape (n, channels, height, width), and labels of shape (n, classes)."""

Spaces = tuple[InputSpace, InputSpace]
"""The space that distilled images are in, and the one that their teacher was trained in."""

_BATCH = 256  # images per pass of a teacher, where nothing depends on it
_BY_CHANCE = 1 / 50  # how often guesses may pass for answers; rarer, and poor teachers of few images would not pass


class LabelSource(ABC):
    """A source of views of the distilled images and of labels for them.

    Attributes:
        source: The kind of labels.
        arch: The name of the teacher's architecture, where it is known.
        soft: Whether labels are a teacher's logits, which a temperature softens; otherwise they are probabilities.
        path: The file or folder that these labels come from, if any.
        sha256: Its hash.
    """

    source: str
    arch: str | None = None
    soft: bool = True
    path: Path | None = None
    sha256: str = ""

    def check(self, distilled: DistilledSet) -> None:  # noqa: B027 - many need none
        """Refuse a set that the labels do not fit by ``UnusableInput``, before anything is trained."""

    @abstractmethod
    def epochs(self, images: EightBitImages, batch_size: int, drawing: ViewDrawing, device: torch.device) -> Epochs:
        """Iterate over epochs, and over the batches of each; inputs are in the host's input space.

        ``batch_size`` and ``drawing`` are for views that are not stored; a teacher runs on ``device``.
        """

    def in_training_mode(self) -> LabelSource:
        """Return this source with its teacher, if it has one at hand, in training mode."""
        return self

    def describe(self) -> dict[str, Any]:
        """Return the kind of labels, for the protocol: the same for sets that are to be compared."""
        return {"source": self.source} | ({"arch": self.arch} if self.arch else {})

    def identity(self) -> dict[str, Any]:
        """Return "path" and "sha256" of the files that these labels come from, for the subject; {} without files."""
        return {} if self.path is None else {"path": str(self.path), "sha256": self.sha256}


class _DrawnViews(LabelSource):
    """A source that labels newly drawn views, epoch by epoch without end."""

    def epochs(self, images: EightBitImages, batch_size: int, drawing: ViewDrawing, device: torch.device) -> Epochs:
        """Iterate without end over newly drawn views."""

        def epoch() -> Iterator[tuple[Tensor, Tensor]]:
            for indices in torch.split(torch.randperm(len(images)), batch_size):
                view = draw_view(len(indices), images.size, drawing)
                inputs = images.views(indices, view).to(device)
                yield inputs, self._label(images.distilled, indices, view, inputs)

        while True:
            yield epoch()

    @abstractmethod
    def _label(self, distilled: DistilledSet, indices: Tensor, view: View, inputs: Tensor) -> Tensor:
        """Label the inputs, which are this view of the images of these indices."""


class ClassLabels(_DrawnViews):
    """The classes that the images were recovered for; in a mixture, by their shares of the area."""

    source = "classes of the images"
    soft = False

    def _label(self, distilled: DistilledSet, indices: Tensor, view: View, inputs: Tensor) -> Tensor:
        labels = distilled.labels.cpu()[indices]
        labels = F.one_hot(labels, distilled.num_classes).float() if labels.dim() == 1 else labels.float()
        if view.mix is None:
            return labels
        own = _own_share(view.mix, (inputs.shape[2], inputs.shape[3]))
        return own * labels + (1 - own) * labels[view.mix.order]


class TeacherLabels(_DrawnViews):
    """What a teacher answers to each view.

    Args:
        file: The teacher's checkpoint.
        arch: The name of its architecture.
        network: A function that builds an untrained network of it.
        spaces: The space of the distilled images, and the one that the teacher was trained in; by default, both are the
            same.

    Raises:
        UnusableInput: If the checkpoint is of another network.
        UnsafeFile: If reading it would run code.
    """

    source = "teacher"

    def __init__(self, file: Path, arch: str, network: Callable[[], nn.Module], spaces: Spaces | None = None) -> None:
        self.arch, self.path, self.sha256 = arch, file, file_sha256(file)
        # Where both are the same, views are taken as they are: there and back again would round them.
        self._spaces = spaces if spaces and spaces[0].describe() != spaces[1].describe() else None
        with torch.random.fork_rng(devices=[]):  # the weights that it draws are replaced at once
            self._teacher = network().eval().requires_grad_(False)
        what = f"a network {arch} for these images and classes"
        hint = "name its architecture by --teacher-arch"
        load_weights(self._teacher, file, what=what, hint=lambda _: hint, space=spaces and spaces[1])

    def describe(self) -> dict[str, Any]:
        """Return the kind of labels, and what the teacher is fed where that is another space than the students'."""
        return super().describe() | ({"normalization": self._spaces[1].describe()} if self._spaces else {})

    def check(self, distilled: DistilledSet) -> None:
        """Refuse a teacher that does not know the images' classes."""
        batches = torch.split(distilled.images.cpu(), _BATCH)
        answers = torch.cat([self.answers(batch).argmax(1) for batch in batches])
        _check_agreement(int((answers == distilled.hard_labels.cpu()).sum()), distilled, f"the teacher {self.path}")

    def in_training_mode(self) -> TeacherLabels:
        """Return this source with a copy of its teacher that normalises by each batch and draws its dropout."""
        trained = copy.copy(self)
        trained._teacher = copy.deepcopy(self._teacher).train()
        return trained

    def answers(self, inputs: Tensor) -> Tensor:
        """Return the teacher's logits for inputs of the students, on their device."""
        with torch.no_grad():
            logits: Tensor = self._teacher.to(inputs.device)(self._seen(inputs))
        return logits

    def _label(self, distilled: DistilledSet, indices: Tensor, view: View, inputs: Tensor) -> Tensor:
        return self.answers(inputs)

    def _seen(self, inputs: Tensor) -> Tensor:
        """Bring views from the space of the distilled images to the teacher's."""
        return inputs if self._spaces is None else self._spaces[1].to_input(self._spaces[0].to_pixels(inputs))


class StoredLabels(LabelSource):
    """What a teacher answered to views that were stored with the answers."""

    source = "fkd"

    def __init__(self, stored: FkdLabels) -> None:
        self.stored = stored
        self.path, self.sha256 = stored.folder, stored.sha256()

    def check(self, distilled: DistilledSet) -> None:
        """Refuse labels of other images, classes or order."""
        stored = self.stored
        n, num_classes = len(distilled.images), distilled.num_classes
        if (stored.n_images, stored.num_classes) != (n, num_classes):
            raise UnusableInput(
                f"expected soft labels of {n} images and {num_classes} classes, as distilled, got {stored.n_images} "
                f"and {stored.num_classes} in {stored.folder}: are they of this set?"
            )
        classes, size = distilled.hard_labels.cpu(), (distilled.images.shape[2], distilled.images.shape[3])
        first_epoch = next(stored.batches())
        hits = sum(int((batch.logits.argmax(1) == _main_class(batch, classes, size)).sum()) for batch in first_epoch)
        _check_agreement(hits, distilled, f"the soft labels in {stored.folder}")

    def epochs(self, images: EightBitImages, batch_size: int, drawing: ViewDrawing, device: torch.device) -> Epochs:
        """Iterate over the stored epochs; views and batches are the stored ones."""
        for batches in self.stored.batches():
            yield ((images.views(batch.indices, batch.view), batch.logits) for batch in batches)


def label_source(
    fkd: Path | None, teacher: Path | None, arch: str, network: Callable[[], nn.Module], spaces: Spaces | None = None
) -> LabelSource | None:
    """Make the source of labels that a user names, a folder of stored ones or a teacher's checkpoint, if any.

    The other arguments are those of ``TeacherLabels``.

    Raises:
        UnusableInput: If both are named, or the named one cannot be used.
        UnsafeFile: If reading a file would run code.
    """
    if fkd is not None and teacher is not None:
        raise UnusableInput("expected --fkd or --teacher, got both: students learn from one of them")
    if fkd is not None:
        return StoredLabels(FkdLabels(fkd))
    return None if teacher is None else TeacherLabels(teacher, arch, network, spaces)


def _own_share(mix: Mix, size: tuple[int, int]) -> float:
    """Return the part of a mixture that comes from the image itself."""
    if mix.box is None:
        return mix.own
    top, left, bottom, right = mix.box  # cut off at the border, so that mix.own is only about it
    return 1 - (bottom - top) * (right - left) / (size[0] * size[1])


def _main_class(batch: StoredBatch, classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class that most of each view shows."""
    own = classes[batch.indices]
    mix = batch.view.mix
    return own if mix is None or _own_share(mix, size) >= 0.5 else own[mix.order]


def _check_agreement(hits: int, distilled: DistilledSet, who: str) -> None:
    """Refuse labels that name the images' classes no more often than chance.

    Images are optimised for their class, so even a poor teacher names most classes. A teacher that does not has seen
    the images in another order, or normalised otherwise, or numbers the classes otherwise. Students would learn noise
    from it without any sign of that.
    """
    n = len(distilled.images)
    least = _least_hits(n, distilled.num_classes)
    if hits < least:
        raise UnusableInput(
            f"expected labels that name the images' own classes more often than chance (of {least} or more of the {n} "
            f"images), but {who} name(s) those of {hits}: of other images, in another order (the host's --fkd-seed is "
            f"42), by a teacher of other classes, by one that was fed otherwise (--teacher-normalization), or by one "
            f"that learned nothing"
        )


def _least_hits(n: int, num_classes: int) -> int:
    """Return how many of n classes must be right to be no chance: as many are by guessing once in 50 times, or less.

    The number of right guesses is binomial. Of so few images that all n are guessed right more often than that, nobody
    could name more, and it is enough to name more than the n / num_classes that guesses name in the mean.
    """
    chance = 1 / num_classes
    if chance**n > _BY_CHANCE:
        return min(n, n // num_classes + 1)
    log_exactly, at_least = n * math.log(chance), 0.0  # logarithms: the parts of many images underflow
    for hits in range(n, 0, -1):
        at_least += math.exp(log_exactly)
        if at_least > _BY_CHANCE:
            return hits + 1
        log_exactly += math.log(hits / (n - hits + 1)) + math.log(num_classes - 1)
    return 1
