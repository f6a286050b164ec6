"""Data sets as tensors, in batches and in random draws by class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

DIGITS_TRAIN, DIGITS_TEST = 1000, 500  # of 1797; the 297 between them are a validation set, which is not used here
TEST_BATCH = 256


class InputError(Exception):
    """A data set or file that cannot be used, and why."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without reading it.

    Each pixel of the images as they are stored is shown as `enlarged` x `enlarged` pixels.
    """

    channel: int
    im_size: tuple[int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    enlarged: int = 1


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(1, (8, 8), 10, (0.3051,), (0.3753,)),
    "MNIST": DatasetInfo(1, (28, 28), 10, (0.1307,), (0.3081,)),
    "FashionMNIST": DatasetInfo(1, (28, 28), 10, (0.2861,), (0.3530,)),
    "CIFAR10": DatasetInfo(3, (32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "CIFAR10x64": DatasetInfo(3, (64, 64), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), enlarged=2),
}

Split = tuple[torch.Tensor, torch.Tensor]


class TensorLoader:
    """Batches of a labelled set of images in memory, in a new order in each pass when shuffled.

    The order comes from torch's global random stream.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int, shuffle: bool = False) -> None:
        self.images, self.labels = images, labels
        self.batch_size, self.shuffle = batch_size, shuffle

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[Split]:
        order = torch.randperm(len(self.labels)) if self.shuffle else torch.arange(len(self.labels))
        for chosen in order.to(self.labels.device).split(self.batch_size):
            yield self.images[chosen], self.labels[chosen]


def _read_digits() -> tuple[Split, Split]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the data set 'digits' comes with scikit-learn, which is not installed") from error
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16.0).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
    train, test = order[:DIGITS_TRAIN], order[-DIGITS_TEST:]
    return (images[train], labels[train]), (images[test], labels[test])


def _read_torchvision(name: str, data_path: str) -> tuple[Split, Split]:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise InputError(f"the data set {name!r} is read by torchvision, which is not installed") from error

    def read(train: bool) -> Split:
        try:
            found = getattr(datasets, name.partition("x")[0])(data_path, train=train, download=False)
        except (RuntimeError, OSError) as error:
            raise InputError(
                f"no usable {name} in the folder {data_path!r} (nothing is downloaded): {error}"
            ) from error
        pixels = torch.as_tensor(found.data)
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        return enlarge(pixels.float() / 255.0, DATASETS[name].enlarged), torch.as_tensor(found.targets).long()

    return read(train=True), read(train=False)


def enlarge(images: torch.Tensor, times: int) -> torch.Tensor:
    """Show each pixel (NCHW) as `times` x `times` pixels."""
    return images.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3) if times > 1 else images


def get_dataset(name: str, data_path: str, normalise: bool = True) -> tuple[Split, Split]:
    """The training and the test images of a data set (NCHW float32), each with its labels (int64).

    Normalised by the data set's mean and standard deviation; if not, pixels from 0 to 1.
    """
    info = DATASETS[name]
    train, test = _read_digits() if name == "digits" else _read_torchvision(name, data_path)
    if not normalise:
        return train, test
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    return ((train[0] - mean) / std, train[1]), ((test[0] - mean) / std, test[1])


class RealImages:
    """The real training images by class, and random draws from them."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, num_classes: int, seed: int) -> None:
        self.images = images
        self._of_class = [np.flatnonzero(labels.cpu().numpy() == c) for c in range(num_classes)]
        self._rng = np.random.default_rng(seed)

    def draw(self, c: int, n: int) -> torch.Tensor:
        """`n` different images of the class c, or all when there are fewer."""
        chosen = self._rng.permutation(self._of_class[c])[:n]
        return self.images[torch.from_numpy(chosen).to(self.images.device)]
