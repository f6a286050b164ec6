"""Recovering images from what a network knows of the data that it was trained on: what SRe2L and CDA share.

From "Squeeze, Recover and Relabel" (Yin, Xing and Shen, NeurIPS 2023), the recover step: noise is optimised until the
network gives it the class that was asked for, and until the batch has, at the input of each BatchNorm layer, the mean
and the variance that the layer remembers from its training.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop
from tqdm import tqdm

from common.arguments import COUNT, NATURAL, NOT_NEGATIVE, POSITIVE, SOME_SHARE, make_parser
from common.checkpoints import Trained, load_checkpoint
from common.data import DatasetInfo, InputError
from common.seeds import SeedStreams, say

ASPECT = (3 / 4, 4 / 3)  # of a crop, as is usual
BETAS = (0.5, 0.9)  # of Adam, by the papers

MinScale = Callable[[int], float]
"""The least share of the image's area that a crop may keep, by iteration."""


def recover_parser(description: str) -> argparse.ArgumentParser:
    """The command line of both methods."""
    parser = make_parser(description)
    add = parser.add_argument
    add("--exp-name", default="test", help="name of the folder of this set, in --syn-data-path")
    add("--syn-data-path", default="syn_data", help="folder for synthetic sets, made if missing")
    add("--arch-path", required=True, metavar="FILE", help="checkpoint that squeeze.py wrote")
    add("--batch-size", type=NATURAL, default=100, help="images that are optimised, and matched, together")
    add("--iteration", type=NATURAL, default=200, help="updates of each batch of images")
    add("--lr", type=POSITIVE, default=0.1, help="learning rate of the images")
    add("--jitter", type=COUNT, default=2, help="pixels that an image is shifted by at most")
    add("--r-bn", type=NOT_NEGATIVE, default=0.05, help="weight of the BatchNorm statistics")
    add("--first-bn-multiplier", type=NOT_NEGATIVE, default=10.0, help="further weight of the first BatchNorm's")
    add("--min-scale-crops", type=SOME_SHARE, default=0.5, help="least share of an image's area in a crop")
    add("--ipc-start", type=COUNT, default=0, help="number of the first image of each class")
    add("--ipc-end", type=NATURAL, default=10, help="number after that of the last image of each class")
    add("--seed", type=COUNT, default=0, help="all that is random follows from it")
    return parser


class FeatureStatistics:
    """Compares, in each forward pass of a network, each BatchNorm's input with what the layer remembers."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        self._distances: dict[nn.Module, torch.Tensor] = {}
        self._hooks = [layer.register_forward_pre_hook(self._compare) for layer in self._layers]

    def _compare(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        off_mean = torch.linalg.vector_norm(mean - layer.running_mean)
        self._distances[layer] = off_mean + torch.linalg.vector_norm(var - layer.running_var)

    def loss(self, first_multiplier: float) -> torch.Tensor:
        """The distances in the last forward pass, summed over layers; the first one counts for more."""
        distances = torch.stack([self._distances[layer] for layer in self._layers])
        return first_multiplier * distances[0] + distances[1:].sum()

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def augment(images: torch.Tensor, min_scale: float, jitter: int) -> torch.Tensor:
    """Crop, perhaps mirror, and shift a batch, all images alike; differentiable in the images."""
    size = list(images.shape[2:])
    crop = RandomResizedCrop.get_params(images, scale=[min_scale, 1.0], ratio=list(ASPECT))
    images = resized_crop(images, *crop, size, antialias=True)
    if torch.rand(()) < 0.5:
        images = images.flip(3)
    down, right = torch.randint(jitter + 1, (2,)).tolist()
    return images.roll((down, right), dims=(2, 3))


def pixel_bounds(info: DatasetInfo, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Black and white, normalised, by channel."""
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (info.mean, info.std))
    return (0 - mean) / std, (1 - mean) / std


def synthesise(
    model: nn.Module, targets: torch.Tensor, info: DatasetInfo, min_scale: MinScale, args: argparse.Namespace
) -> torch.Tensor:
    """Recover one image for each target; normalised, as the network sees them."""
    black, white = pixel_bounds(info, targets.device)
    # Drawn on the CPU, so that every device starts from the same noise.
    images = torch.randn(len(targets), info.channel, *info.im_size).to(targets.device).requires_grad_(True)
    optimizer = torch.optim.Adam([images], lr=args.lr, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.iteration)
    statistics = FeatureStatistics(model)
    for iteration in tqdm(range(args.iteration), desc="recover", unit="it", leave=False, disable=None):
        output = model(augment(images, min_scale(iteration), args.jitter))
        loss_ce = F.cross_entropy(output, targets)
        loss_bn = statistics.loss(args.first_bn_multiplier)
        loss = loss_ce + args.r_bn * loss_bn
        if iteration in (0, args.iteration - 1):
            say(f"iteration {iteration}: loss = {loss:.4f}, classes {loss_ce:.4f}, statistics {loss_bn:.4f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(black, white)
    statistics.close()
    return images.detach()


def write_images(folder: Path, images: torch.Tensor, info: DatasetInfo, names: list[tuple[int, int]]) -> None:
    """Write each image, normalised, as a JPEG file that is named by its class and its number in the class."""
    black, white = pixel_bounds(info, images.device)
    pixels = ((images - black) / (white - black) * 255).round().clamp(0, 255)
    for array, (c, ipc_id) in zip(pixels.cpu().numpy().astype(np.uint8), names):
        place = folder / f"new{c:03d}"
        place.mkdir(exist_ok=True)
        picture = Image.fromarray(array[0] if info.channel == 1 else array.transpose(1, 2, 0))
        picture.save(place / f"class{c:03d}_id{ipc_id:03d}.jpg")


def load_teacher(args: argparse.Namespace) -> Trained:
    """Check the arguments that argparse cannot, and read the network to recover from."""
    if args.ipc_start >= args.ipc_end:
        raise SystemExit(f"recover.py: --ipc-start {args.ipc_start} is not below --ipc-end {args.ipc_end}")
    try:
        return load_checkpoint(args.arch_path, "cuda" if torch.cuda.is_available() else "cpu")
    except InputError as error:
        raise SystemExit(f"recover.py: {error}") from error


def recover(args: argparse.Namespace, min_scale: MinScale) -> None:
    """Recover images of every class, in batches, each from a seed of its own, and write them.

    Unlike in the published code, where a batch is one image of each class, a batch goes on with the next image of each
    class until it is full: with few classes, statistics over one of each would be poor. A batch size equal to the
    number of classes is what was published; images are then the same however their numbers are shared among runs.
    """
    teacher = load_teacher(args)
    device = next(teacher.model.parameters()).device
    folder = Path(args.syn_data_path) / args.exp_name
    folder.mkdir(parents=True, exist_ok=True)
    say(f"settings: {vars(args)}")

    wanted = [(c, i) for i, c in product(range(args.ipc_start, args.ipc_end), range(teacher.info.num_classes))]
    seeds = SeedStreams(args.seed)
    for start in range(0, len(wanted), args.batch_size):
        names = wanted[start : start + args.batch_size]
        torch.manual_seed(seeds.next(f"image {names[0]}"))
        targets = torch.tensor([c for c, _ in names], device=device)
        images = synthesise(teacher.model, targets, teacher.info, min_scale, args)
        if not math.isfinite(images.abs().sum().item()):
            raise SystemExit("recover.py: the images are not finite; lower --lr or --r-bn")
        write_images(folder, images, teacher.info, names)
    say(f"written: {len(wanted)} images in {folder}")
