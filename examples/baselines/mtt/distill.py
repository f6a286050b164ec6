"""Distillation by matching training trajectories: students of a few synthetic images move as experts on real ones do.

MTT: Cazenavette, Wang, Torralba, Efros and Zhu, "Dataset Distillation by Matching Training Trajectories", CVPR 2022.
Written anew from the paper. The experts come from buffer.py, with the same --dataset, --model, --zca, --buffer_path.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from utils import evaluate_synset

from common.arguments import make_parser, parse_distill_options
from common.flat import FlatNetwork
from common.matching import Distillation, Step, augmented

LR_IMG = 30.0


def parse_args() -> argparse.Namespace:
    return parse_distill_options(make_parser("Dataset distillation by matching training trajectories (MTT)."), LR_IMG)


def matching_loss(
    network: FlatNetwork,
    criterion: nn.Module,
    start: torch.Tensor,
    target: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    lr: torch.Tensor,
    plan: list[Step],
    args: argparse.Namespace,
) -> torch.Tensor:
    """How far from the target a student ends that takes the planned steps from the start: Algorithm 1 of the paper.

    Squared distance, as a fraction of the squared distance of start and target, so that segments of a trajectory that
    the expert runs through slowly count as much. All steps stay in the graph.
    """
    student = start.clone().requires_grad_(True)
    for step in plan:
        output = network(augmented(images, step, args), student)
        loss = criterion(output, labels[step.indices.to(labels.device)])
        (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
        student = student - lr * gradient
    return (student - target).square().sum() / (start - target).square().sum()


def main(args: argparse.Namespace) -> None:
    criterion = nn.CrossEntropyLoss().to(args.device)
    syn = Distillation(args)
    for it in syn.iterations(evaluate_synset):
        start, target = syn.draw_segment()
        plan = syn.plan_steps()
        loss = matching_loss(syn.network, criterion, start, target, syn.images, syn.labels, syn.lr, plan, args)
        syn.update(it, loss, torch.autograd.grad(loss, (syn.images, syn.lr)))


if __name__ == "__main__":
    main(parse_args())
