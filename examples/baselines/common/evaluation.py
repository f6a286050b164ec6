"""How good a synthetic set is: a new network is trained on it and tested on real images."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from common.data import TensorLoader
from common.seeds import say


class Student(NamedTuple):
    """A network after training, with what each epoch of it gave, and its test."""

    net: nn.Module
    accs_train: list[float]
    acc_test: float
    losses_train: list[float]
    loss_test: float


def train_student(
    epoch: Callable[..., tuple[float, float]],
    it_eval: int,
    net: nn.Module,
    images_train: torch.Tensor,
    labels_train: torch.Tensor,
    testloader: TensorLoader,
    args: argparse.Namespace,
) -> Student:
    """Train a network on a synthetic set by a baseline's own `epoch`, and test it.

    The schedule is that of the dataset condensation literature: SGD with momentum, a tenth of the rate in the second
    half.
    """
    net = net.to(args.device)
    criterion = nn.CrossEntropyLoss().to(args.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr_net, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [args.epoch_eval_train // 2 + 1], gamma=0.1)
    trainloader = TensorLoader(images_train, labels_train, args.batch_train, shuffle=True)

    start = time.perf_counter()
    losses, accs = [], []
    for _ in range(args.epoch_eval_train):
        loss_train, acc_train = epoch("train", trainloader, net, optimizer, criterion, args, aug=True)
        schedule.step()
        losses.append(loss_train)
        accs.append(acc_train)
    seconds = time.perf_counter() - start
    loss_test, acc_test = epoch("test", testloader, net, None, criterion, args, aug=False)
    say(
        f"evaluation {it_eval:02d}: {args.epoch_eval_train} epochs in {seconds:.1f} s, train loss = {losses[-1]:.6f}, "
        f"train acc = {accs[-1]:.4f}, test acc = {acc_test:.4f}"
    )
    return Student(net, accs, acc_test, losses, loss_test)


def evaluate_synset(
    epoch: Callable[..., tuple[float, float]],
    it_eval: int,
    net: nn.Module,
    images_train: torch.Tensor,
    labels_train: torch.Tensor,
    testloader: TensorLoader,
    args: argparse.Namespace,
    return_loss: bool = False,
    texture: bool = False,
) -> Student | tuple[nn.Module, list[float], float]:
    """Train a new network on a synthetic set, at the learning rate args.lr_net, and test it.

    Returns it with its training accuracy in each epoch and its test accuracy; with `return_loss` the losses follow.
    """
    run_epoch = partial(epoch, texture=texture)
    student = train_student(run_epoch, it_eval, net, images_train, labels_train, testloader, args)
    return student if return_loss else student[:3]
