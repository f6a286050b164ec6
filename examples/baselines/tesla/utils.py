"""What both scripts need: the training of networks, on real and on synthetic images."""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from common import evaluation
from common.augmentation import diff_augment
from common.data import TensorLoader


def epoch(
    mode: str,
    dataloader: TensorLoader,
    net: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    criterion: nn.Module,
    args: argparse.Namespace,
    aug: bool,
    texture: bool = False,
) -> tuple[float, float]:
    """Train ("train") or test ("test") a network for one pass; returns the mean loss and the accuracy.

    Labels are classes, or class probabilities (soft labels). Testing leaves gradients on (no torch.no_grad), as the
    code bases of this family do.
    """
    if texture:
        raise ValueError("texture: this baseline distils images, not textures")
    net.train(mode == "train")
    loss_sum, correct, seen = 0.0, 0, 0
    for images, labels in dataloader:
        images, labels = images.to(args.device), labels.to(args.device)
        classes = labels if labels.ndim == 1 else labels.argmax(dim=1)
        if aug and args.dsa:
            images = diff_augment(images, args.dsa_strategy)
        output = net(images)
        if isinstance(criterion, nn.MSELoss):  # of one-hot labels
            labels = F.one_hot(classes, output.shape[1]).to(output.dtype)
        loss = criterion(output, labels)
        if mode == "train":
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((output.detach().argmax(dim=1) == classes).sum())
        seen += len(labels)
    return loss_sum / seen, correct / seen


evaluate_synset = partial(evaluation.evaluate_synset, epoch)
