"""What every buffer.py does before and after it trains an expert."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from common.data import DATASETS, TEST_BATCH, DatasetInfo, InputError, TensorLoader
from common.networks import get_network
from common.seeds import SeedStreams, say
from common.splits import first_images
from common.trajectories import Trajectory, buffer_files, buffer_folder, is_finite, save_buffer
from common.whitening import get_inputs


def prepare_experts(args: argparse.Namespace) -> tuple[DatasetInfo, SeedStreams, TensorLoader, TensorLoader, Path]:
    """What is known of the data set, the run's seeds, the real images to train and to test on, and the output folder.

    The folder is made; files that it holds stay.
    """
    info, seeds = DATASETS[args.dataset], SeedStreams(args.seed)
    try:
        get_network(args.model, info, args.seed, args.device)  # does it fit the images?
        train, test, _ = get_inputs(args.dataset, args.data_path, args.zca, args.device)
        train = first_images(args.dataset, train, args.n_train)
    except (ValueError, InputError) as error:
        raise SystemExit(f"buffer.py: {error}") from error
    save_dir = buffer_folder(args)
    save_dir.mkdir(parents=True, exist_ok=True)
    say(f"settings: {vars(args)}")
    if existing := len(buffer_files(save_dir)):
        say(f"{existing} files are in {save_dir} already; the same options and --seed make the same experts again")
    return info, seeds, TensorLoader(*train, args.batch_train, shuffle=True), TensorLoader(*test, TEST_BATCH), save_dir


def new_experts(
    args: argparse.Namespace, info: DatasetInfo, seeds: SeedStreams, save_dir: Path
) -> Iterator[tuple[int, nn.Module, torch.optim.Optimizer, Trajectory]]:
    """Each expert's number, network, optimizer, and the trajectory to fill in training; full files are written."""
    trajectories: list[Trajectory] = []
    for it in tqdm(range(args.num_experts), desc="experts", unit="expert", disable=None):
        net = get_network(args.model, info, seeds.next("expert"), args.device)
        optimizer = torch.optim.SGD(net.parameters(), lr=args.lr_teacher, momentum=args.mom, weight_decay=args.l2)
        timestamps: Trajectory = []
        yield it, net, optimizer, timestamps
        if not is_finite(timestamps):
            raise SystemExit(f"buffer.py: expert {it} diverged; lower --lr_teacher")
        trajectories.append(timestamps)
        if len(trajectories) == args.save_interval:
            say(f"written: {save_buffer(trajectories, save_dir)}")
            trajectories = []
