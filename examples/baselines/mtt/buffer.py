"""Trajectories of experts: networks are trained on the real images, and their parameters kept after each epoch.

MTT: Cazenavette, Wang, Torralba, Efros and Zhu, "Dataset Distillation by Matching Training Trajectories", CVPR 2022.
Written anew from the paper (section 3.1, expert trajectories). distill.py learns from what this script writes.
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

SAVE_INTERVAL = 10


def parse_args() -> argparse.Namespace:
    return parse_expert_options(make_parser("Training trajectories of experts, for MTT's distill.py."), SAVE_INTERVAL)


def main(args: argparse.Namespace) -> None:
    info, seeds, trainloader, testloader, save_dir = prepare_experts(args)
    criterion = nn.CrossEntropyLoss().to(args.device)
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
            _, test_acc = epoch(
                "test",
                dataloader=testloader,
                net=teacher_net,
                optimizer=None,
                criterion=criterion,
                args=args,
                aug=False,
            )
            say(f"expert {it}, epoch {e}: train acc = {train_acc:.4f}, test acc = {test_acc:.4f}")
            timestamps.append(snapshot(teacher_net))


if __name__ == "__main__":
    main(parse_args())
