"""Training trajectories of experts: the parameters of networks after each epoch on real data, in files.

A file is a list of experts; an expert is a list of snapshots, the first before training; a snapshot is the list of the
network's parameters. BatchNorm's running statistics are not in it.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import torch
from torch import nn

from common.data import InputError

Snapshot = list[torch.Tensor]
Trajectory = list[Snapshot]


def buffer_folder(args: argparse.Namespace) -> Path:
    """Where the trajectories of a data set and a model lie; whitened images have experts of their own."""
    return Path(args.buffer_path) / (args.dataset if args.zca else f"{args.dataset}_NO_ZCA") / args.model


def snapshot(net: nn.Module) -> Snapshot:
    """A copy of the parameters: without one, a snapshot on a CPU would change as training goes on."""
    return [parameter.detach().to("cpu", copy=True) for parameter in net.parameters()]


def is_finite(trajectory: Trajectory) -> bool:
    """Whether the training did not diverge; no parameter recovers from nan, so the last snapshot tells."""
    return all(bool(parameter.isfinite().all()) for parameter in trajectory[-1])


def buffer_files(folder: Path) -> list[Path]:
    """The files in a folder, from replay_buffer_0.pt to the first number that is free."""
    files: list[Path] = []
    while (path := folder / f"replay_buffer_{len(files)}.pt").exists():
        files.append(path)
    return files


def save_buffer(trajectories: list[Trajectory], folder: Path) -> Path:
    """Write experts into a new file; what is there stays."""
    path = folder / f"replay_buffer_{len(buffer_files(folder))}.pt"
    torch.save(trajectories, path)
    return path


def load_experts(folder: Path, max_experts: int | None, last_epoch: int, net: nn.Module) -> list[Trajectory]:
    """The experts in all files of a folder, checked; `max_experts` from each file, or all.

    The files are mapped, not read: only what is used gets into memory.
    """
    files = buffer_files(folder)
    if not files:
        raise InputError(f"no replay_buffer_0.pt in {folder}; buffer.py with the same options makes it")
    shapes = [parameter.shape for parameter in net.parameters()]
    experts: list[Trajectory] = []
    for path in files:
        try:
            found = torch.load(path, mmap=True, weights_only=True)
        except (RuntimeError, OSError, pickle.UnpicklingError) as error:
            raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        experts += found[:max_experts]
        for trajectory in found[:max_experts]:
            if [parameter.shape for parameter in trajectory[0]] != shapes:
                raise InputError(f"{path} holds experts of another network")
            if last_epoch >= len(trajectory):
                raise InputError(
                    f"{path} holds experts of {len(trajectory) - 1} epochs, but --max_start_epoch and --expert_epochs "
                    f"lead to epoch {last_epoch} (the last start epoch is max_start_epoch - 1)"
                )
    return experts
