"""What both scripts need: the training of networks, on real and on synthetic images."""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from common.augmentation import diff_augment
from common.data import TensorLoader
from common.evaluation import train_student


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


def evaluate_synset(
    it_eval: int,
    net: nn.Module,
    images_train: torch.Tensor,
    labels_train: torch.Tensor,
    testloader: TensorLoader,
    args: argparse.Namespace,
    return_loss: bool = False,
    texture: bool = False,
) -> tuple[nn.Module, list[float], float] | tuple[nn.Module, list[float], float, list[float], float]:
    """Train a new network on a synthetic set, at the learning rate args.lr_net, and test it.

    Returns it with its training accuracy in each epoch and its test accuracy; with `return_loss` the losses follow.
    """
    run_epoch = partial(epoch, texture=texture)
    student = train_student(run_epoch, it_eval, net, images_train, labels_train, testloader, args)
    accuracies = (student.net, student.accs_train, student.acc_test)
    return (*accuracies, student.losses_train, student.loss_test) if return_loss else accuracies
