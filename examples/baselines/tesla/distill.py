"""Distillation by matching training trajectories in constant memory: the graph of one step at a time.

TESLA: Cui, Wang, Si and Hsieh, "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", ICML 2023.
Written anew from the paper. The experts come from buffer.py, with the same --dataset, --model, --zca, --buffer_path.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from utils import evaluate_synset

from common.arguments import make_parser, parse_distill_options
from common.flat import FlatNetwork
from common.matching import Distillation, Step, augmented

LR_IMG = 5.0  # not MTT's 30: with it, one image per class of digits comes to an accuracy of 77 %, with 5 to 93 %


def parse_args() -> argparse.Namespace:
    parser = make_parser("Dataset distillation by matching training trajectories in constant memory (TESLA).")
    parser.add_argument("--teacher_label", action="store_true", help="soft labels, by the expert to be matched")
    return parse_distill_options(parser, LR_IMG)


def step_gradient(
    network: FlatNetwork,
    criterion: nn.Module,
    student: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    step: Step,
    args: argparse.Namespace,
    create_graph: bool,
) -> torch.Tensor:
    """The gradient of the loss on a step's images with respect to a student's parameters, which nothing led to."""
    student = student.detach().requires_grad_(True)
    output = network(augmented(images, step, args), student)
    loss = criterion(output, labels[step.indices.to(labels.device)])
    return torch.autograd.grad(loss, student, create_graph=create_graph)[0]


def matching_gradients(
    network: FlatNetwork,
    criterion: nn.Module,
    start: torch.Tensor,
    target: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    lr: torch.Tensor,
    plan: list[Step],
    args: argparse.Namespace,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """MTT's loss, and its gradients with respect to the images and the learning rate, without unrolling.

    Steps with the gradients G_i lead the student to start - lr * sum_i G_i. With R = start - lr * sum_i G_i - target
    and D = ||start - target||^2

        loss = ||R||^2 / D,    d loss / d G_i = -2 lr R / D,

    the same vector for every i. The first pass finds it; the second takes each step again and multiplies the vector
    with d G_i / d images: one step's graph at a time (the paper's section on memory efficient gradients). As there, a
    G_i counts as a function of its own batch; that a batch also moves the parameters at which later gradients are taken
    is left out, so that with more than one step this is not quite the gradient of the unrolled loss.
    """
    rate = lr.detach()
    student, total = start, torch.zeros_like(start)
    for step in plan:
        gradient = step_gradient(network, criterion, student, images.detach(), labels, step, args, create_graph=False)
        student, total = student - rate * gradient, total + gradient
    missed, distance = student - target, (start - target).square().sum()

    per_gradient = -2 * rate * missed / distance
    student, image_gradient = start, torch.zeros_like(images)
    for step in plan:
        gradient = step_gradient(network, criterion, student, images, labels, step, args, create_graph=True)
        image_gradient += torch.autograd.grad(gradient @ per_gradient, images)[0]
        student = student - rate * gradient.detach()
    return missed.square().sum() / distance, (image_gradient, -2 * (missed @ total) / distance)


def teacher_labels(network: FlatNetwork, target: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The class probabilities that the expert to be matched gives the images: the paper's soft label assignment."""
    with torch.no_grad():
        return F.softmax(network(images, target), dim=1)


def main(args: argparse.Namespace) -> None:
    criterion = nn.CrossEntropyLoss().to(args.device)
    syn = Distillation(args)
    if args.teacher_label:  # until the first expert has given its own
        syn.labels = F.one_hot(syn.labels, syn.info.num_classes).float()
    for it in syn.iterations(evaluate_synset):
        start, target = syn.draw_segment()
        if args.teacher_label:
            syn.labels = teacher_labels(syn.network, target, syn.images)
        plan = syn.plan_steps()
        loss, gradients = matching_gradients(
            syn.network, criterion, start, target, syn.images, syn.labels, syn.lr, plan, args
        )
        syn.update(it, loss, gradients)


if __name__ == "__main__":
    main(parse_args())
