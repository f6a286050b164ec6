"""Data, seeds, augmentation, gradient distance, and the training and testing of networks, for main.py."""

from __future__ import annotations

import argparse
import collections
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import networks
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

# ---------------------------------------------------------------------------------------------------------------------
# Output and seeds


def say(text: str) -> None:
    """Print a line with the time on standard output, without tearing a progress bar that may be on the terminal."""
    tqdm.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}")


class SeedStreams:
    """Seeds by purpose: the n-th one for a purpose depends on the run's seed, the purpose and n, and on nothing else.

    So the evaluations, for instance, can be left out without changing what is distilled.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: collections.Counter[str] = collections.Counter()

    def next(self, purpose: str) -> int:
        entropy = [self._seed, zlib.crc32(purpose.encode()), self._drawn[purpose]]
        self._drawn[purpose] += 1
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


# ---------------------------------------------------------------------------------------------------------------------
# Data

DIGITS_TRAIN, DIGITS_TEST = 1000, 500  # of 1797; the 297 between them are a validation set, which is not used here
TEST_BATCH = 256


class DataError(Exception):
    """The data set cannot be had, and why."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without reading it."""

    channel: int
    im_size: tuple[int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(1, (8, 8), 10, (0.3051,), (0.3753,)),
    "MNIST": DatasetInfo(1, (28, 28), 10, (0.1307,), (0.3081,)),
    "FashionMNIST": DatasetInfo(1, (28, 28), 10, (0.2861,), (0.3530,)),
    "CIFAR10": DatasetInfo(3, (32, 32), 10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
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
        raise DataError("the data set 'digits' comes with scikit-learn, which is not installed") from error
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
        raise DataError(f"the data set {name!r} is read by torchvision, which is not installed") from error

    def read(train: bool) -> Split:
        try:
            found = getattr(datasets, name)(data_path, train=train, download=False)
        except (RuntimeError, OSError) as error:
            raise DataError(f"no usable {name} in the folder {data_path!r} (nothing is downloaded): {error}") from error
        pixels = torch.as_tensor(found.data)
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        return pixels.float() / 255.0, torch.as_tensor(found.targets).long()

    return read(train=True), read(train=False)


def get_dataset(name: str, data_path: str) -> tuple[Split, Split]:
    """The training and the test images of a data set, normalised (NCHW float32), each with its labels (int64)."""
    info = DATASETS[name]
    train, test = _read_digits() if name == "digits" else _read_torchvision(name, data_path)
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


# ---------------------------------------------------------------------------------------------------------------------
# Settings and networks


def get_loops(ipc: int) -> tuple[int, int]:
    """The outer and the inner loop of the papers, for a number of images per class."""
    loops = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    if ipc not in loops:
        raise ValueError(f"there are no outer and inner loops for ipc {ipc}, only for {', '.join(map(str, loops))}")
    return loops[ipc]


def get_network(model: str, info: DatasetInfo, seed: int, device: str) -> nn.Module:
    """A network with random weights. It seeds torch's global random stream, as training it goes on from there."""
    torch.manual_seed(seed)
    return networks.build(model, info.channel, info.num_classes, info.im_size).to(device)


def get_eval_model(model: str) -> str:
    """The model to evaluate with: without BatchNorm, whose statistics a synthetic set is too small to estimate."""
    return model.removesuffix("BN")


# ---------------------------------------------------------------------------------------------------------------------
# Differentiable augmentation (DSA)


class Draws:
    """The random numbers of one augmentation, each shaped to broadcast over a batch of images.

    With a seed (Siamese) one number serves the whole batch, and another batch with the same seed gets the same one,
    whatever its size. Without, each image gets its own, from torch's global stream, which a seed leaves alone.
    """

    def __init__(self, images: torch.Tensor, seed: int | None) -> None:
        self._device, self._count = images.device, len(images) if seed is None else 1
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def pick(self, n: int) -> int:
        """One of 0..n-1 for the whole batch."""
        return int(torch.randint(n, (1,), generator=self._generator))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        drawn = torch.rand(self._count, 1, 1, 1, generator=self._generator)
        return (low + (high - low) * drawn).to(self._device)

    def integers(self, low: int, high: int) -> torch.Tensor:
        """Of low..high, both included."""
        return torch.randint(low, high + 1, (self._count, 1, 1, 1), generator=self._generator).to(self._device)


def _color(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Brightness, saturation and contrast."""
    x = x + draws.uniform(-0.5, 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * draws.uniform(0.0, 2.0)
    level = x.mean(dim=(1, 2, 3), keepdim=True)
    return level + (x - level) * draws.uniform(0.5, 1.5)


def _pixel_grid(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The row and the column number of each pixel, broadcastable over x."""
    rows = torch.arange(x.shape[2], device=x.device).view(1, 1, -1, 1)
    cols = torch.arange(x.shape[3], device=x.device).view(1, 1, 1, -1)
    return rows, cols


def _crop(x: torch.Tensor, draws: Draws, ratio: float = 0.125) -> torch.Tensor:
    """Shift by up to an eighth of the side; what comes in is zero."""
    up, left = round(x.shape[2] * ratio), round(x.shape[3] * ratio)
    rows, cols = _pixel_grid(x)
    rows = rows + up + draws.integers(-up, up)
    cols = cols + left + draws.integers(-left, left)
    padded = F.pad(x, (left, left, up, up))
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
    return padded[image, channel, rows, cols]


def _cutout(x: torch.Tensor, draws: Draws, ratio: float = 0.5) -> torch.Tensor:
    """Blank a square of half the side around a random pixel."""
    rows, cols = _pixel_grid(x)
    height, width = round(x.shape[2] * ratio), round(x.shape[3] * ratio)
    top = draws.integers(0, x.shape[2] - 1) - height // 2
    left = draws.integers(0, x.shape[3] - 1) - width // 2
    inside = (rows >= top) & (rows < top + height) & (cols >= left) & (cols < left + width)
    return x * ~inside


def _flip(x: torch.Tensor, draws: Draws) -> torch.Tensor:
    return torch.where(draws.uniform() < 0.5, x.flip(3), x)


def _warp(x: torch.Tensor, rows: list[list[torch.Tensor]]) -> torch.Tensor:
    """Resample x through the linear map with these entries; each is a number per image, or one for all."""
    theta = torch.stack([torch.cat([entry.flatten(1) for entry in row], dim=1) for row in rows], dim=1)
    theta = F.pad(theta, (0, 1)).expand(len(x), 2, 3)  # no translation
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def _scale(x: torch.Tensor, draws: Draws, ratio: float = 1.2) -> torch.Tensor:
    vertical, horizontal = draws.uniform(1 / ratio, ratio), draws.uniform(1 / ratio, ratio)
    zero = torch.zeros_like(vertical)
    return _warp(x, [[horizontal, zero], [zero, vertical]])


def _rotate(x: torch.Tensor, draws: Draws, degrees: float = 15.0) -> torch.Tensor:
    angle = draws.uniform(-math.radians(degrees), math.radians(degrees))
    return _warp(x, [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


AUGMENTATIONS: dict[str, Callable[[torch.Tensor, Draws], torch.Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}


def parse_strategy(text: str) -> list[str]:
    """The augmentations in a strategy such as color_crop_flip; an empty list for none."""
    names = [] if text.lower() in ("", "none") else text.split("_")
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"unknown augmentation {unknown[0]!r}; there are {', '.join(AUGMENTATIONS)}")
    return names


def diff_augment(images: torch.Tensor, strategy: str, seed: int | None = None) -> torch.Tensor:
    """One augmentation of the strategy, picked at random, applied to a batch; differentiable in the images.

    The same seed gives the same augmentation with the same parameters to every image of every batch.
    """
    names = parse_strategy(strategy)
    if not names:
        return images
    draws = Draws(images, seed)
    return AUGMENTATIONS[names[draws.pick(len(names))]](images, draws)


# ---------------------------------------------------------------------------------------------------------------------
# Distance between gradients

EPSILON = 1e-6


def _one_minus_cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the rows of a and b, or of two vectors."""
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return 1 - (a * b).sum(dim=-1) / (norms + EPSILON)


def match_loss(
    gw_syn: tuple[torch.Tensor, ...], gw_real: tuple[torch.Tensor, ...], args: argparse.Namespace
) -> torch.Tensor:
    """How far the gradients of a network on synthetic and on real images lie apart, by args.dis_metric."""
    if args.dis_metric == "ours":  # of DC: by layer and output channel; biases and norm parameters do not count
        pairs = [(s.flatten(1), r.flatten(1)) for s, r in zip(gw_syn, gw_real, strict=True) if r.ndim > 1]
        return torch.stack([_one_minus_cosine(s, r).sum() for s, r in pairs]).sum()
    syn, real = (torch.cat([g.flatten() for g in gradients]) for gradients in (gw_syn, gw_real))
    if args.dis_metric == "mse":
        return (syn - real).square().sum()
    if args.dis_metric == "cos":
        return _one_minus_cosine(syn, real)
    raise ValueError(f"unknown distance {args.dis_metric!r}")


# ---------------------------------------------------------------------------------------------------------------------
# Training and testing


def epoch(
    mode: str,
    dataloader: TensorLoader,
    net: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    criterion: nn.Module,
    args: argparse.Namespace,
    aug: bool,
) -> tuple[float, float]:
    """Train ("train") or test ("test") a network for one pass; returns the mean loss and the accuracy.

    Testing leaves gradients on (no torch.no_grad), as the code bases of this family do: who watches the loss
    calls of such a script from outside has to tell testing from training in another way, and this one shows it.
    """
    net.train(mode == "train")
    loss_sum, correct, seen = 0.0, 0, 0
    for images, labels in dataloader:
        images, labels = images.to(args.device), labels.to(args.device)
        if aug and args.dsa:
            images = diff_augment(images, args.dsa_strategy)
        output = net(images)
        loss = criterion(output, labels)
        if mode == "train":
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((output.detach().argmax(dim=1) == labels).sum())
        seen += len(labels)
    return loss_sum / seen, correct / seen


def evaluate_synset(
    it_eval: int,
    net: nn.Module,
    images_train: torch.Tensor,
    labels_train: torch.Tensor,
    testloader: TensorLoader,
    args: argparse.Namespace,
) -> tuple[nn.Module, float, float]:
    """Train a new network on a synthetic set and test it; returns it with its training and test accuracy."""
    net = net.to(args.device)
    criterion = nn.CrossEntropyLoss().to(args.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr_net, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [args.epoch_eval_train // 2 + 1], gamma=0.1)
    trainloader = TensorLoader(images_train, labels_train, args.batch_train, shuffle=True)

    start = time.perf_counter()
    loss_train, acc_train = math.nan, math.nan
    for _ in range(args.epoch_eval_train):
        loss_train, acc_train = epoch("train", trainloader, net, optimizer, criterion, args, aug=True)
        schedule.step()
    seconds = time.perf_counter() - start
    _, acc_test = epoch("test", testloader, net, None, criterion, args, aug=False)
    say(
        f"evaluation {it_eval:02d}: {args.epoch_eval_train} epochs in {seconds:.1f} s, train loss = {loss_train:.6f}, "
        f"train acc = {acc_train:.4f}, test acc = {acc_test:.4f}"
    )
    return net, acc_train, acc_test
