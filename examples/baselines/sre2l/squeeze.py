"""SRe2L, first step: train a network with BatchNorm on the real images.

Yin, Xing and Shen, "Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective",
NeurIPS 2023. Written anew from the paper, in the shape of torchvision's reference training that its authors use.

    python squeeze.py --dataset FashionMNIST --data-path data --n-train 8000 --output-dir save
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from common.arguments import COUNT, NATURAL, NOT_NEGATIVE, POSITIVE, SHARE, make_parser
from common.bn_networks import BN_MODELS, create_model
from common.checkpoints import save_checkpoint
from common.data import DATASETS, TEST_BATCH, InputError, TensorLoader
from common.seeds import SeedStreams, say
from common.splits import SPLITS, get_splits


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser("SRe2L: train a network on real images.")
    add = parser.add_argument
    add("--dataset", default="FashionMNIST", choices=tuple(DATASETS), help="real data")
    add("--data-path", default="data", help="folder with the real data, where the data set needs one")
    add("--model", default="ConvNetBN32-64-128", choices=BN_MODELS, help="network")
    add("--epochs", type=NATURAL, default=5, help="passes over the training images")
    add("--batch-size", type=NATURAL, default=64, help="images in a batch")
    add("--lr", type=POSITIVE, default=0.02, help="initial learning rate; it falls to 0 along a cosine")
    add("--momentum", type=SHARE, default=0.9, help="of SGD")
    add("--wd", type=NOT_NEGATIVE, default=5e-4, help="weight decay")
    add("--label-smoothing", type=SHARE, default=0.0, help="of the cross-entropy")
    add("--n-train", type=NATURAL, default=None, help="train on the first so many images; None: all but --split val's")
    add("--split", default="test", choices=SPLITS, help="images to evaluate on; val: the last tenth of the training's")
    add("--output-dir", default="save", help="folder for the checkpoint, made if missing")
    add("--seed", type=COUNT, default=0, help="all that is random follows from it")
    return parser


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    data_loader: TensorLoader,
    device: str,
    epoch: int,
    args: argparse.Namespace,
) -> None:
    """One pass over the real images."""
    model.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for image, target in tqdm(data_loader, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None):
        image, target = image.to(device), target.to(device)
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        loss_sum += loss.item() * len(target)
        correct += int((output.argmax(dim=1) == target).sum())
        seen += len(target)
    if not math.isfinite(loss_sum):
        raise SystemExit(f"squeeze.py: the loss is not finite in epoch {epoch}; lower --lr")
    say(f"epoch {epoch + 1}/{args.epochs}: train loss = {loss_sum / seen:.4f}, train acc = {correct / seen:.4f}")


def evaluate(model: nn.Module, criterion: nn.Module, data_loader: TensorLoader, device: str) -> float:
    """The accuracy on real images that the network was not trained on."""
    model.eval()
    loss_sum, correct, seen = 0.0, 0, 0
    with torch.inference_mode():
        for image, target in data_loader:
            image, target = image.to(device), target.to(device)
            output = model(image)
            loss_sum += criterion(output, target).item() * len(target)
            correct += int((output.argmax(dim=1) == target).sum())
            seen += len(target)
    say(f"{seen} real images: loss = {loss_sum / seen:.4f}, acc = {correct / seen:.4f}")
    return correct / seen


def main(args: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seeds = SeedStreams(args.seed)
    torch.manual_seed(seeds.next("network"))
    try:
        model = create_model(args.model, DATASETS[args.dataset]).to(device)
        train, held_out = get_splits(args.dataset, args.data_path, args.split, args.n_train)
    except (ValueError, InputError) as error:
        raise SystemExit(f"squeeze.py: {error}") from error
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    say(f"settings: {vars(args)}")

    data_loader = TensorLoader(*train, args.batch_size, shuffle=True)
    data_loader_test = TensorLoader(*held_out, TEST_BATCH)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum, weight_decay=args.wd)
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    torch.manual_seed(seeds.next("order of the images"))
    for epoch in range(args.epochs):
        train_one_epoch(model, criterion, optimizer, data_loader, device, epoch, args)
        lr_scheduler.step()
    acc = evaluate(model, criterion, data_loader_test, device)
    say(f"written: {save_checkpoint(output_dir, model, args.model, args.dataset, args.epochs - 1, acc)}")


if __name__ == "__main__":
    main(get_args_parser().parse_args())
