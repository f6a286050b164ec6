"""Trained networks on the disk, with all that is needed to make them again."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common.bn_networks import BN_MODELS, create_model
from common.data import DATASETS, DatasetInfo, InputError

NAME = "checkpoint.pth"
KEYS = ("model", "arch", "dataset", "epoch", "acc")


@dataclass(frozen=True)
class Trained:
    """A network from a checkpoint: frozen, in eval."""

    model: nn.Module
    arch: str
    dataset: str

    @property
    def info(self) -> DatasetInfo:
        return DATASETS[self.dataset]


def save_checkpoint(folder: Path, model: nn.Module, arch: str, dataset: str, epoch: int, acc: float) -> Path:
    """Write a network after its `epoch`-th epoch (from 0), with its accuracy; returns the file."""
    path = folder / NAME
    torch.save(dict(zip(KEYS, (model.state_dict(), arch, dataset, epoch, acc))), path)
    return path


def load_plain(path: str | Path, unusable: str) -> object:
    """Read what torch.save wrote, unpickling nothing but tensors and plain values; `unusable` begins an error."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{unusable}: {reason[0]}") from error


def load_checkpoint(path: str, device: str) -> Trained:
    """Read a network."""
    unusable = f"no usable checkpoint {path!r}"
    content = load_plain(path, unusable)
    if not isinstance(content, dict) or not set(KEYS) <= set(content):
        raise InputError(f"{unusable}: it does not hold {', '.join(KEYS)}")
    arch, dataset = content["arch"], content["dataset"]
    if arch not in BN_MODELS or dataset not in DATASETS:
        raise InputError(f"{unusable}: unknown network {arch!r} or data set {dataset!r}")
    with torch.random.fork_rng(devices=[]):  # the weights that it would draw are replaced at once
        model = create_model(arch, DATASETS[dataset])
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise InputError(f"{unusable}: these are not the weights of {arch}") from error
    return Trained(model.to(device).eval().requires_grad_(False), arch, dataset)
