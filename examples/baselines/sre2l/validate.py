"""SRe2L, last step: train a student on the recovered images and soft labels, and test it on real images.

Yin, Xing and Shen, "Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective",
NeurIPS 2023. Written anew from the paper. The soft labels come from relabel.py's files, or from a teacher on the way.

    python validate.py --train-dir syn_data/test --fkd-path fkd --data-path data
    python validate.py --train-dir syn_data/test --teacher save/checkpoint.pth --data-path data
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from squeeze import evaluate
from utils import (
    add_view_arguments,
    distillation_loss,
    draw_view,
    epoch_batches,
    fkd_file,
    load_fkd,
    read_folder,
    render,
)

from common.arguments import COUNT, NOT_NEGATIVE, POSITIVE, make_parser
from common.bn_networks import BN_MODELS, create_model
from common.checkpoints import Trained, load_checkpoint, save_checkpoint
from common.data import DATASETS, TEST_BATCH, InputError, TensorLoader
from common.seeds import SeedStreams, say
from common.splits import SPLITS, get_splits

REPORT_EVERY = 50

Labelled = Callable[[int, int, list[Image.Image]], tuple[torch.Tensor, torch.Tensor]]
"""From an epoch, the number of a batch in it and the batch's images to what a network sees of them, and its labels."""


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser("SRe2L: train and test a student of recovered images.")
    add = parser.add_argument
    add("--train-dir", required=True, metavar="DIR", help="folder of images that recover.py wrote")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--fkd-path", metavar="DIR", help="folder of soft labels that relabel.py wrote; they fix views")
    labels.add_argument("--teacher", metavar="FILE", help="checkpoint that squeeze.py wrote, to label on the way")
    add("--dataset", default="FashionMNIST", choices=tuple(DATASETS), help="real data to test on")
    add("--data-path", default="data", help="folder with the real data, where the data set needs one")
    add("--split", default="test", choices=SPLITS, help="images to test on; val: the last tenth of the training's")
    add("--model", default="ConvNetBN32-64-128", choices=BN_MODELS, help="student")
    add_view_arguments(parser)
    add("--adamw-lr", type=POSITIVE, default=0.001, help="initial learning rate; it falls to 0 along a cosine")
    add("--adamw-weight-decay", type=NOT_NEGATIVE, default=0.01, help="weight decay")
    add("-T", "--temperature", type=POSITIVE, default=20.0, help="softens the classes of teacher and student")
    add("--output-dir", default="save_student", help="folder for the student's checkpoint, made if missing")
    add("--seed", type=COUNT, default=0, help="all that is random but the order of the images follows from it")
    return parser


def labels_from_files(args: argparse.Namespace, device: str) -> Labelled:
    """Replay the views that relabel.py showed its teacher, with the labels that it wrote."""
    info, folder = DATASETS[args.dataset], Path(args.fkd_path)

    def labelled(epoch: int, batch: int, shown: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        view, logits = load_fkd(fkd_file(folder, epoch, batch), len(shown))
        return render(shown, view, info, device), logits.to(device)

    return labelled


def labels_from_teacher(teacher: Trained, args: argparse.Namespace, device: str) -> Labelled:
    """Label new views in each epoch."""

    def labelled(_epoch: int, _batch: int, shown: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        view = draw_view(shown, args)
        seen = render(shown, view, teacher.info, device)
        with torch.no_grad():
            return seen, teacher.model(seen)

    return labelled


def prepare_labels(args: argparse.Namespace, n_images: int, device: str) -> Labelled:
    """Where the labels come from, checked to reach for all epochs."""
    if args.teacher is not None:
        teacher = load_checkpoint(args.teacher, device)
        if teacher.dataset != args.dataset:
            raise InputError(f"the teacher knows {teacher.dataset}, not {args.dataset}: --dataset")
        return labels_from_teacher(teacher, args, device)
    folder = Path(args.fkd_path)
    if not fkd_file(folder, args.epochs - 1, 0).is_file():
        raise InputError(f"{args.fkd_path!r} has no soft labels for {args.epochs} epochs: --epochs")
    sizes = [len(chosen) for chosen in epoch_batches(n_images, args.batch_size, args.fkd_seed)]
    for batch, size in enumerate(sizes):
        load_fkd(fkd_file(folder, 0, batch), size)
    if fkd_file(folder, 0, len(sizes)).exists():
        raise InputError(f"{args.fkd_path!r} has more than {len(sizes)} batches: other images, or another --batch-size")
    return labels_from_files(args, device)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: list[Image.Image],
    labelled: Labelled,
    args: argparse.Namespace,
) -> None:
    """Train a student to give each view the classes that the teacher gave it."""
    model.train()
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    batches = epoch_batches(len(images), args.batch_size, args.fkd_seed)
    for epoch in tqdm(range(args.epochs), desc="student", unit="epoch", disable=None):
        loss_sum = 0.0
        for batch, chosen in enumerate(batches):
            seen, logits = labelled(epoch, batch, [images[number] for number in chosen])
            loss = distillation_loss(model(seen), logits, args.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(chosen)
        lr_scheduler.step()
        if not math.isfinite(loss_sum):
            raise SystemExit(f"validate.py: the loss is not finite in epoch {epoch}; lower --adamw-lr")
        if epoch % REPORT_EVERY == 0 or epoch == args.epochs - 1:
            say(f"epoch {epoch + 1}/{args.epochs}: train loss = {loss_sum / len(images):.6f}")


def main(args: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    info = DATASETS[args.dataset]
    seeds = SeedStreams(args.seed)
    torch.manual_seed(seeds.next("student"))
    try:
        model = create_model(args.model, info).to(device)
        images = read_folder(args.train_dir, info)
        labelled = prepare_labels(args, len(images), device)
        _, held_out = get_splits(args.dataset, args.data_path, args.split)
    except (ValueError, InputError) as error:
        raise SystemExit(f"validate.py: {error}") from error
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    say(f"settings: {vars(args)}")

    torch.manual_seed(seeds.next("views"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.adamw_lr, weight_decay=args.adamw_weight_decay)
    train(model, optimizer, images, labelled, args)
    acc = evaluate(model, nn.CrossEntropyLoss(), TensorLoader(*held_out, TEST_BATCH), device)
    say(f"student of {len(images)} images: {args.split} acc = {acc:.4f}")
    say(f"written: {save_checkpoint(output_dir, model, args.model, args.dataset, args.epochs - 1, acc)}")


if __name__ == "__main__":
    main(get_args_parser().parse_args())
