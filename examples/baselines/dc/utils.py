"""What main.py needs: the papers' settings, the distance between gradients, and the training of networks."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from common.augmentation import diff_augment
from common.data import TensorLoader
from common.evaluation import train_student


def get_loops(ipc: int) -> tuple[int, int]:
    """The outer and the inner loop of the papers, for a number of images per class."""
    loops = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    if ipc not in loops:
        raise ValueError(f"there are no outer and inner loops for ipc {ipc}, only for {', '.join(map(str, loops))}")
    return loops[ipc]


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
        pairs = [(s.flatten(1), r.flatten(1)) for s, r in zip(gw_syn, gw_real) if r.ndim > 1]
        return torch.stack([_one_minus_cosine(s, r).sum() for s, r in pairs]).sum()
    syn, real = (torch.cat([g.flatten() for g in gradients]) for gradients in (gw_syn, gw_real))
    if args.dis_metric == "mse":
        return (syn - real).square().sum()
    return _one_minus_cosine(syn, real)


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
    student = train_student(epoch, it_eval, net, images_train, labels_train, testloader, args)
    return student.net, student.accs_train[-1], student.acc_test
