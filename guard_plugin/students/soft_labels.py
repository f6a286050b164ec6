"""Where the labels of views come from: a teacher's stored answers, a teacher at hand, or the images' own classes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guard_plugin.distilled import DistilledSet, FkdLabels, Mix, StoredBatch
from guard_plugin.errors import UnusableInput
from guard_plugin.files import file_sha256, read_state
from guard_plugin.students.pictures import Pictures, draw_view

__all__ = ["ClassLabels", "LabelSource", "Shown", "StoredLabels", "TeacherLabels", "ViewSettings", "label_source"]

_BATCH = 256  # images per pass of a teacher, where nothing depends on it
_SIGMAS = 3.0


@dataclass(frozen=True)
class ViewSettings:
    """How views are drawn, where they are not stored.

    Args:
        batch_size: Images in a batch.
        min_scale: The least part of an image's area in a crop.
    """

    batch_size: int
    min_scale: float


@dataclass(frozen=True)
class Shown:
    """A batch, and what is to be learned of it.

    Args:
        inputs: Shape (n, channels, height, width), in the host's input space.
        labels: Shape (n, classes): logits of a teacher, or probabilities.
    """

    inputs: Tensor
    labels: Tensor


class LabelSource(ABC):
    """Shows a student the distilled images, epoch by epoch, with labels."""

    soft: bool = True
    """Whether labels are a teacher's logits, to be softened by a temperature; or else probabilities."""

    def check(self, distilled: DistilledSet) -> None:  # noqa: B027 - many need none
        """Refuse, before anything is trained, a set that the labels do not fit.

        Raises:
            UnusableInput: If they do not.
        """

    @abstractmethod
    def epochs(
        self, distilled: DistilledSet, pictures: Pictures, settings: ViewSettings, device: torch.device
    ) -> Iterator[Iterator[Shown]]:
        """Iterate over epochs, and over the batches of each, on the CPU or the device.

        Args:
            distilled: The set.
            pictures: Its images.
            settings: How views are drawn.
            device: Where a network may be run.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What kind of labels they are, for the protocol: the same for sets that are to be compared."""

    def identity(self) -> dict[str, Any]:
        """Which files these very labels come from: "path" and "sha256", for the subject; empty without files."""
        return {}


class ClassLabels(LabelSource):
    """The classes that the images were recovered for; in a mixture, by their shares of the area."""

    soft = False

    def epochs(
        self, distilled: DistilledSet, pictures: Pictures, settings: ViewSettings, device: torch.device
    ) -> Iterator[Iterator[Shown]]:
        """Iterate without end over newly drawn views."""
        probabilities = _as_probabilities(distilled)

        def shown() -> Iterator[Shown]:
            for batch in torch.split(torch.randperm(len(pictures)), settings.batch_size):
                view = draw_view(len(batch), pictures.size, settings.min_scale)
                labels = probabilities[batch]
                own = 1.0 if view.mix is None else _own_share(view.mix, pictures.size)
                other = labels if view.mix is None else labels[view.mix.order]
                yield Shown(pictures.show(batch, view), own * labels + (1 - own) * other)

        while True:
            yield shown()

    def describe(self) -> dict[str, Any]:
        """That no teacher is asked."""
        return {"source": "classes of the images"}


class TeacherLabels(LabelSource):
    """What a teacher answers to each view.

    Args:
        file: Its checkpoint.
        arch: Its architecture's name.
        network: Builds an untrained network of that architecture.

    Raises:
        UnusableInput: If the checkpoint cannot be read, or is of another network.
        UnsafeFile: If reading it would run code.
    """

    def __init__(self, file: Path, arch: str, network: Callable[[], nn.Module]) -> None:
        self.file, self.arch = file, arch
        state = read_state(file)
        self._sha256 = file_sha256(file)
        with torch.random.fork_rng(devices=[]):  # the weights that it draws are replaced at once
            self._teacher = network().eval().requires_grad_(False)
        try:
            self._teacher.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n\t", maxsplit=2)[1:2]) or str(error)
            raise UnusableInput(
                f"{file} is not a network {arch} for these images and classes: name its architecture by "
                f"--teacher-arch (torch: {reason})"
            ) from error

    def check(self, distilled: DistilledSet) -> None:
        """Refuse a teacher that does not know the images' classes."""
        hits = 0
        with torch.no_grad():
            for images, classes in zip(
                torch.split(distilled.images, _BATCH), torch.split(_classes(distilled), _BATCH), strict=True
            ):
                hits += int((self._teacher.cpu()(images).argmax(1) == classes).sum())
        _check_agreement(hits, distilled, f"the teacher {self.file}")

    def epochs(
        self, distilled: DistilledSet, pictures: Pictures, settings: ViewSettings, device: torch.device
    ) -> Iterator[Iterator[Shown]]:
        """Iterate without end over newly drawn views."""
        del distilled
        teacher = self._teacher.to(device)

        def shown() -> Iterator[Shown]:
            for batch in torch.split(torch.randperm(len(pictures)), settings.batch_size):
                inputs = pictures.show(batch, draw_view(len(batch), pictures.size, settings.min_scale)).to(device)
                with torch.no_grad():  # closed before the yield: the student's pass comes after that
                    labels = teacher(inputs)
                yield Shown(inputs, labels)

        while True:
            yield shown()

    def describe(self) -> dict[str, Any]:
        """That a teacher of that architecture is asked."""
        return {"source": "teacher", "arch": self.arch}

    def identity(self) -> dict[str, Any]:
        """The teacher."""
        return {"path": str(self.file), "sha256": self._sha256}


class StoredLabels(LabelSource):
    """What a teacher answered to views that were stored with the answers.

    Args:
        stored: The files.
    """

    def __init__(self, stored: FkdLabels) -> None:
        self.stored = stored
        self._sha256 = stored.sha256()

    def check(self, distilled: DistilledSet) -> None:
        """Refuse labels of other images, classes or order."""
        stored = self.stored
        found, wanted = (stored.n_images, stored.num_classes), (len(distilled.images), distilled.num_classes)
        if found != wanted:
            raise UnusableInput(
                f"expected soft labels of {wanted[0]} images and {wanted[1]} classes, as distilled, got {found[0]} and "
                f"{found[1]} in {stored.folder}: are they of this set?"
            )
        classes, size = _classes(distilled), (distilled.images.shape[2], distilled.images.shape[3])
        hits = sum(int((batch.logits.argmax(1) == _main_class(batch, classes, size)).sum()) for batch in self._first())
        _check_agreement(hits, distilled, f"the soft labels in {stored.folder}")

    def _first(self) -> Iterator[StoredBatch]:
        return next(self.stored.batches())

    def epochs(
        self, distilled: DistilledSet, pictures: Pictures, settings: ViewSettings, device: torch.device
    ) -> Iterator[Iterator[Shown]]:
        """Iterate over the stored epochs."""
        del distilled, settings, device

        def shown(batches: Iterator[StoredBatch]) -> Iterator[Shown]:
            for batch in batches:
                yield Shown(pictures.show(batch.indices, batch.view), batch.logits)

        return (shown(batches) for batches in self.stored.batches())

    def describe(self) -> dict[str, Any]:
        """That they were stored."""
        return {"source": "fkd"}

    def identity(self) -> dict[str, Any]:
        """The stored files."""
        return {"path": str(self.stored.folder), "sha256": self._sha256}


def label_source(
    fkd: Path | None, teacher: Path | None, arch: str, network: Callable[[], nn.Module]
) -> LabelSource | None:
    """The source that a user names, if any.

    Args:
        fkd: A folder of stored soft labels.
        teacher: A checkpoint.
        arch: The teacher's architecture.
        network: Builds an untrained network of that architecture.

    Raises:
        UnusableInput: If both are named, or the named one cannot be used.
        UnsafeFile: If reading a file would run code.
    """
    if fkd is not None and teacher is not None:
        raise UnusableInput("expected --fkd or --teacher, got both: students learn from one of them")
    if fkd is not None:
        return StoredLabels(FkdLabels(fkd))
    return None if teacher is None else TeacherLabels(teacher, arch, network)


def _as_probabilities(distilled: DistilledSet) -> Tensor:
    labels = distilled.labels.cpu()
    return F.one_hot(labels, distilled.num_classes).float() if labels.dim() == 1 else labels.float()


def _classes(distilled: DistilledSet) -> Tensor:
    labels = distilled.labels.cpu()
    return labels if labels.dim() == 1 else labels.argmax(dim=1)


def _own_share(mix: Mix, size: tuple[int, int]) -> float:
    """The part of a mixture that comes from the image itself."""
    if mix.box is None:
        return mix.own
    top, left, bottom, right = mix.box  # cut off at the border, so that mix.own is only about it
    return 1 - (bottom - top) * (right - left) / (size[0] * size[1])


def _main_class(batch: StoredBatch, classes: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of which most is seen."""
    own = classes[batch.indices]
    mix = batch.view.mix
    return own if mix is None or _own_share(mix, size) >= 0.5 else own[mix.order]


def _check_agreement(hits: int, distilled: DistilledSet, who: str) -> None:
    """Refuse labels that name the images' classes no more often than chance.

    Images are optimised for their class, so even a poor teacher names most. One that does not has seen them in another
    order, or normalised otherwise, or numbers the classes otherwise; students would learn noise, and nothing would say.
    """
    n, chance = len(distilled.images), 1 / distilled.num_classes
    limit = chance + _SIGMAS * math.sqrt(chance * (1 - chance) / n)
    if hits / n <= limit:
        raise UnusableInput(
            f"expected labels that name the images' own classes more often than chance ({limit:.0%} of {n}), but "
            f"{who} name(s) {hits / n:.0%}: of other images, in another order (the host's --fkd-seed is 42), by a "
            f"teacher of other classes, or by one that learned nothing"
        )
