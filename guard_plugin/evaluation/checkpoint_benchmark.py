"""The benchmark of networks that were trained elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.attacks import Attack, check_classes
from guard_plugin.datasets import load_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import Group
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.planning import attack_protocol, data_protocol, planned_attacks
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.running import Plan, check_counts, run_plan, usable_device
from guard_plugin.evaluation.source import Source, given_normalization
from guard_plugin.files import joint_sha256
from guard_plugin.networks.checkpoints import checkpoint_subject, load_checkpoint
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import InputSpace

__all__ = ["benchmark_checkpoints"]


def benchmark_checkpoints(
    files: Sequence[Path],
    *,
    dataset: str,
    arch: str,
    attacks: str,
    eps: Sequence[str | float] | None,
    out: Path,
    normalization: str | None = None,
    data_dir: Path | str | None = None,
    n_examples: int | None = None,
    batch_size: int = 128,
    source: tuple[Path, str, str | None] | None = None,
    registry: Mapping[str, type[Attack]] | None = None,
    ledger: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    split: str = "test",
) -> FinishedBenchmark:
    """Measure networks, each from its checkpoint; go on where an earlier run of the same protocol stopped.

    Several checkpoints of one architecture, such as those of several seeds, are measured together, as students are.
    Writes ``out/results.json`` and a flag per example, network and column in ``out/records/``.

    Args:
        files: The checkpoints, at least one, all different.
        dataset: A name that ``load_images`` knows.
        arch: A name that ``build_network`` knows.
        attacks: A comma list such as "fgsm,pgd100", or a preset.
        eps: One radius or several, in pixel units; by default, the preset's.
        out: The folder.
        normalization: What the networks' training fed them (``parse_normalization``); by default, what is usual for the
            data set.
        data_dir: Where the data set lies.
        n_examples: The first so many examples of the split; all by default.
        batch_size: Examples per attack pass.
        source: Checkpoint, architecture and normalisation (None for the usual one) of the model that transferred
            attacks are made on.
        registry: Attack classes by family; guard-plugin's own by default.
        ledger: Of the run that trained the networks, for results.json.
        device: Where to compute.
        split: "train", "val" or "test".

    Returns:
        What results.json holds, with the outcomes per network and example.

    Raises:
        UnusableInput: If an argument, the data, a checkpoint or the folder cannot be worked with.
        UnsafeFile: If reading a checkpoint would run code.
        AuditFailure: If an attack breaks its own bounds.
    """
    check_counts(batch_size=batch_size)
    described = [checkpoint_subject(file) for file in files]
    if not files or len({one["sha256"] for one in described}) < len(files):
        raise UnusableInput(f"expected at least one checkpoint, all different, got {', '.join(map(str, files))}")
    columns = planned_attacks(attacks, eps, registry)
    place = usable_device(device)
    images = load_images(dataset, data_dir, split, n_examples)
    check_classes(columns, images.num_classes)
    space = given_normalization(normalization, images)
    channels, height, width = images.pixels.shape[1:]
    networks = [
        load_checkpoint(file, arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))
        for file in files
    ]
    transfer = Source.read(*source, images, place) if source else None
    protocol = {
        **data_protocol(images, split),
        "arch": arch,
        "normalization": space.describe(),
        "recipe": None,
        "seeds": len(files),
        **attack_protocol(attacks, columns, transfer),
    }
    plan = Plan(
        images=images,
        attacks=columns,
        protocol=protocol,
        identity={"checkpoint_sha256": [one["sha256"] for one in described]},
        subject=described[0] if len(files) == 1 else _several(files, described),
        out=Path(out),
        batch_size=batch_size,
        device=place,
        source=transfer,
        ledger=ledger,
    )
    return run_plan(plan, _Checkpoints(networks, space, place))


def _several(files: Sequence[Path], described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several checkpoints as one subject; "sha256" is as for several distilled files (``subject_of``)."""
    sha256 = joint_sha256((file.name, file) for file in files)
    return {**described[0], "path": str(files[0]), "sha256": sha256, "files": [one["path"] for one in described]}


@dataclass(frozen=True)
class _Checkpoints:
    networks: Sequence[nn.Module]
    space: InputSpace
    device: torch.device
    room: int = 0

    @property
    def count(self) -> int:
        return len(self.networks)

    def prepare(self, folder: BenchmarkFolder, group: Group) -> None:
        """Nothing: they are trained."""

    def pixel_model(self, folder: BenchmarkFolder, k: int) -> nn.Module:
        del folder
        return PixelModel(self.networks[k], self.space).eval().to(self.device)
