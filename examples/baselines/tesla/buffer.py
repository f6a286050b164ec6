"""Trajectories of experts: networks are trained on the real images, and their parameters kept after each epoch.

TESLA: Cui, Wang, Si and Hsieh, "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", ICML 2023.
Written anew from the paper. distill.py learns from what this script writes, and so can MTT's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from utils import epoch

from common.arguments import make_parser, parse_expert_options
from common.experts import new_experts, prepare_experts
from common.seeds import say
from common.trajectories import snapshot

SAVE_INTERVAL = 1
CRITERIA = {"ce": nn.CrossEntropyLoss, "mse": nn.MSELoss}


def parse_args() -> argparse.Namespace:
    parser = make_parser("Training trajectories of experts, for TESLA's distill.py.")
    parser.add_argument(
        "--loss_type", default="ce", choices=tuple(CRITERIA), help="cross-entropy, or squared error of one-hot labels"
    )
    return parse_expert_options(parser, SAVE_INTERVAL)


def main(args: argparse.Namespace) -> None:
    info, seeds, trainloader, testloader, save_dir = prepare_experts(args)
    criterion = CRITERIA[args.loss_type]().to(args.device)
    for it, teacher_net, teacher_optim, timestamps in new_experts(args, info, seeds, save_dir):
        timestamps.append(snapshot(teacher_net))
        for e in range(args.train_epochs):
            _, train_acc = epoch(
                "train",
                dataloader=trainloader,
                net=teacher_net,
                optimizer=teacher_optim,
                criterion=criterion,
                args=args,
                aug=True,
            )
            say(f"expert {it}, epoch {e}: train acc = {train_acc:.4f}")
            timestamps.append(snapshot(teacher_net))
        _, test_acc = epoch(
            "test", dataloader=testloader, net=teacher_net, optimizer=None, criterion=criterion, args=args, aug=False
        )
        say(f"expert {it}: test acc = {test_acc:.4f}")


if __name__ == "__main__":
    main(parse_args())
