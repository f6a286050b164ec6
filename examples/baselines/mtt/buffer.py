"""Trajectories of experts: networks are trained on the real images, and their parameters kept after each epoch.

MTT: Cazenavette, Wang, Torralba, Efros and Zhu, "Dataset Distillation by Matching Training Trajectories", CVPR 2022.
Written anew from the paper (section 3.1, expert trajectories). distill.py learns from what this script writes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from utils import epoch

from common.arguments import make_parser, parse_expert_options
from common.experts import prepare_experts
from common.networks import get_network
from common.seeds import say
from common.trajectories import Trajectory, is_finite, save_buffer, snapshot

SAVE_INTERVAL = 10


def parse_args() -> argparse.Namespace:
    return parse_expert_options(make_parser("Training trajectories of experts, for MTT's distill.py."), SAVE_INTERVAL)


def main(args: argparse.Namespace) -> None:
    args.dsa = args.dsa == "True"
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    info, seeds, trainloader, testloader, save_dir = prepare_experts(args)
    criterion = nn.CrossEntropyLoss().to(args.device)
    trajectories: list[Trajectory] = []
    for it in tqdm(range(args.num_experts), desc="experts", unit="expert", disable=None):
        teacher_net = get_network(args.model, info, seeds.next("expert"), args.device)
        teacher_optim = torch.optim.SGD(
            teacher_net.parameters(), lr=args.lr_teacher, momentum=args.mom, weight_decay=args.l2
        )
        timestamps = [snapshot(teacher_net)]
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
        if not is_finite(timestamps):
            raise SystemExit(f"buffer.py: expert {it} diverged; lower --lr_teacher")
        trajectories.append(timestamps)
        if len(trajectories) == args.save_interval:
            say(f"written: {save_buffer(trajectories, save_dir)}")
            trajectories = []


if __name__ == "__main__":
    main(parse_args())
