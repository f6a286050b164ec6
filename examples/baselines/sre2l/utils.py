"""Views of the recovered images, and the files that keep them with a teacher's soft labels.

A view is what a network sees of a batch: a crop and perhaps a mirror image of each, mixed with one another (CutMix: Yun
et al., ICCV 2019). Fast knowledge distillation (FKD: Shen and Xing, ECCV 2022) writes views with their labels once, so
that students can be trained on them without the teacher.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import BatchSampler, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop, to_tensor

from common.arguments import COUNT, NATURAL, POSITIVE, SOME_SHARE
from common.checkpoints import load_plain
from common.data import DatasetInfo, InputError
from common.recovery import ASPECT

MIX_TYPES = ("cutmix", "none")


def read_folder(path: str, info: DatasetInfo) -> list[Image.Image]:
    """The recovered images, in the order of their classes and then of their names."""
    mode = "L" if info.channel == 1 else "RGB"
    try:
        folder = ImageFolder(path)
        images = [Image.open(file).convert(mode) for file, _ in folder.samples]
    except OSError as error:
        raise InputError(f"no usable images in {path!r}: {str(error).splitlines()[0]}") from error
    expected = [f"new{c:03d}" for c in range(info.num_classes)]
    if folder.classes != expected:
        raise InputError(f"{path!r} holds other folders than {expected[0]} to {expected[-1]}")
    for image, (file, _) in zip(images, folder.samples):
        if (image.height, image.width) != info.im_size:
            raise InputError(f"{file} is not of {info.im_size[0]}x{info.im_size[1]} pixels")
    return images


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of what decides the views."""
    add = parser.add_argument
    add("--epochs", type=NATURAL, default=300, help="passes over the recovered images")
    add("--batch-size", type=NATURAL, default=50, help="images in a batch")
    add("--min-scale-crops", type=SOME_SHARE, default=0.5, help="least share of an image's area in a crop")
    add("--mix-type", default="cutmix", choices=MIX_TYPES, help="how the images of a batch are mixed")
    add("--cutmix", type=POSITIVE, default=1.0, help="both parameters of the beta distribution of CutMix")
    add("--fkd_seed", "--fkd-seed", type=COUNT, default=42, help="decides the order of the images")


def epoch_batches(n: int, batch_size: int, seed: int) -> BatchSampler:
    """The numbers of the images in each batch; each pass over it is the next epoch, in another order.

    As in the published code, by torch's own samplers: who has the seed can tell which images a file is about.
    """
    sampler = RandomSampler(range(n), generator=torch.Generator().manual_seed(seed))
    return BatchSampler(sampler, batch_size, drop_last=False)


@dataclass(frozen=True)
class View:
    """What is seen of a batch of images.

    `coords` has a row for each image: top, left, height and width of its crop, in shares of the image's sides. `flip`
    says which images are mirrored. Where images are mixed, the rectangle `mix_bbox` of rows from its first number to
    its third, and of columns from its second to its fourth, comes from the images in the order `mix_index`.
    """

    coords: torch.Tensor
    flip: torch.Tensor
    mix_index: torch.Tensor | None = None
    mix_lam: float | None = None
    mix_bbox: list[int] | None = None


def draw_view(images: list[Image.Image], args: argparse.Namespace) -> View:
    """A view at random, from torch's global random stream."""
    coords = []
    for image in images:
        scale, ratio = [args.min_scale_crops, 1.0], list(ASPECT)
        top, left, height, width = RandomResizedCrop.get_params(image, scale=scale, ratio=ratio)
        coords.append((top / image.height, left / image.width, height / image.height, width / image.width))
    view = View(torch.tensor(coords), torch.rand(len(images)) < 0.5)
    if args.mix_type == "none":
        return view
    lam = torch.distributions.Beta(args.cutmix, args.cutmix).sample().item()
    bbox = cutmix_box(images[0].height, images[0].width, lam)
    return View(view.coords, view.flip, torch.randperm(len(images)), lam, bbox)


def cutmix_box(height: int, width: int, lam: float) -> list[int]:
    """A rectangle with a share of 1 - lam of the image, around a random pixel; what would lie outside is cut off."""
    halves = [int(side * math.sqrt(1 - lam)) // 2 for side in (height, width)]
    centre = [int(torch.randint(side, ())) for side in (height, width)]
    (top, bottom), (left, right) = (
        (max(at - half, 0), min(at + half, side)) for at, half, side in zip(centre, halves, (height, width))
    )
    return [top, left, bottom, right]


def render(images: list[Image.Image], view: View, info: DatasetInfo, device: str) -> torch.Tensor:
    """The batch that the view shows, normalised."""
    seen = []
    for image, coords, flip in zip(images, view.coords.tolist(), view.flip.tolist()):
        sides = (image.height, image.width, image.height, image.width)
        box = [round(share * side) for share, side in zip(coords, sides)]  # shares are kept in float32
        pixels = to_tensor(resized_crop(image, *box, list(info.im_size), InterpolationMode.BILINEAR))
        seen.append(pixels.flip(2) if flip else pixels)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    batch = (torch.stack(seen) - mean) / std
    if view.mix_index is not None and view.mix_bbox is not None:
        top, left, bottom, right = view.mix_bbox
        batch[:, :, top:bottom, left:right] = batch[view.mix_index, :, top:bottom, left:right]
    return batch.to(device)


def fkd_file(folder: Path, epoch: int, batch: int) -> Path:
    return folder / f"epoch_{epoch}" / f"batch_{batch}.tar"


def save_fkd(path: Path, view: View, logits: torch.Tensor) -> None:
    """Write a batch's view and its soft labels, as logits in half precision, in the published code's format."""
    path.parent.mkdir(exist_ok=True)
    content = [view.coords, view.flip, view.mix_index, view.mix_lam, view.mix_bbox, logits.half().cpu()]
    torch.save(content, path)


def load_fkd(path: Path, size: int) -> tuple[View, torch.Tensor]:
    """Read what `save_fkd` wrote for a batch of this size."""
    unusable = f"no usable soft labels in {path}"
    content = load_plain(path, unusable)
    if not isinstance(content, list) or len(content) != 6:
        raise InputError(f"{unusable}: not the six values of a batch")
    *view, logits = content
    if len(logits) != size:
        raise InputError(f"{path} is about {len(logits)} images, not {size}: other images, or another --batch-size")
    return View(*view), logits.float()


def distillation_loss(output: torch.Tensor, logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """How far a student's classes lie from its teacher's (Kullback-Leibler), both softened by the temperature."""
    student, teacher = F.log_softmax(output / temperature, dim=1), F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
