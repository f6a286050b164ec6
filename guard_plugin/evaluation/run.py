"""A run of a benchmark, from its options to results.json, over one process or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.attacks import PRESETS, Attack, builtin_registry, check_classes, parse_attacks, parse_radii
from guard_plugin.datasets import ImageSet, load_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import Group, joined_group, usable_device
from guard_plugin.evaluation.engine import evaluate_model
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.options import BenchmarkOptions
from guard_plugin.evaluation.pace import Paces
from guard_plugin.evaluation.proof import Proof
from guard_plugin.evaluation.results import FinishedBenchmark, attack_columns, data_protocol, finish, versions
from guard_plugin.evaluation.statistics import require_scipy
from guard_plugin.files import file_sha256
from guard_plugin.networks.architectures import build_network
from guard_plugin.networks.checkpoints import load_checkpoint
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.plugins import installed_plugins
from guard_plugin.ranks import is_main_process
from guard_plugin.spaces import InputSpace, Normalization
from guard_plugin.spaces.usual import normalization_named, parse_normalization

__all__ = ["BenchmarkRun", "Subject", "given_normalization", "load_pixel_model", "untrained_network"]

# Records of one version do not go with those of another.
_SOFTWARE = ("guard_plugin", "torch", "pyautoattack", "torchattacks", "device")


@dataclass(frozen=True)
class Subject(ABC):
    """The networks that a benchmark measures, and what its files say about them.

    Args:
        description: "subject" of results.json.
        protocol: The entries "arch", "normalization", "recipe" and "seeds" of the protocol.
        identity: What the numbers depend on besides the protocol, as JSON values.
    """

    description: Mapping[str, Any]
    protocol: Mapping[str, Any]
    identity: Mapping[str, Any]

    def prepare(self, folder: BenchmarkFolder, group: Group, device: torch.device) -> None:  # noqa: B027
        """Do, on the device, what must be done before the first network can be measured; by default, nothing."""

    def warnings(self) -> Iterable[tuple[str, str]]:
        """Return columns, each with a reason to doubt it that lies in what is measured; by default, none."""
        return ()

    @abstractmethod
    def pixel_model(self, folder: BenchmarkFolder, k: int) -> nn.Module:
        """Return network k in pixel space, in eval mode."""


class BenchmarkRun:
    """A benchmark that is ready to measure: everything that its options name is loaded and checked, nothing written."""

    def __init__(self, options: BenchmarkOptions) -> None:
        self.options = options
        require_scipy()  # for the intervals, at the end
        self.attacks = _attacks(options)
        self.device = usable_device(options.device)
        self.images = load_images(
            options.dataset, options.data_dir, options.split, options.n_examples, options.num_classes
        )
        check_classes(self.attacks, self.images.num_classes)
        self.source: PixelModel | None = None  # the model on which transferred attacks are made
        if options.source is not None:
            file, arch, normalization = options.source
            space = given_normalization(normalization, self.images, "--source-normalization")
            self.source = load_pixel_model(Path(file), arch, space, self.images)

    def measure(self, subject: Subject) -> FinishedBenchmark:
        """Measure every network of the subject and write results.json; continue where an earlier run stopped."""
        folder = BenchmarkFolder(self.options.folder, examples=len(self.images.labels))
        protocol, used = self._protocol(subject), versions(self.device)
        told = Proof(dict(subject.description.get("made_under", {})), [dict(one) for one in self.options.ledgers])
        fingerprint = {**protocol, **subject.identity, "software": {name: used[name] for name in _SOFTWARE}}
        told.check()
        with joined_group() as group, ExitStack() as claim:
            group.first(lambda: claim.enter_context(folder.claimed(fingerprint)))
            proof = group.first(lambda: folder.proof(told))
            proof.check()  # what was recorded may be more than is told now
            subject.prepare(folder, group, self.device)
            paces, networks = Paces(), subject.protocol["seeds"]
            records = [
                evaluate_model(
                    partial(subject.pixel_model, folder, k),
                    self.images,
                    self.attacks,
                    batch_size=self.options.batch_size,
                    device=self.device,
                    records=folder.records(k),
                    source=self.source,
                    group=group,
                    paces=paces,
                    title=f"network {k + 1} of {networks}," if networks > 1 else "",
                )
                for k in range(networks)
            ]
            finished = finish(
                records,
                self.attacks,
                self.images.num_classes,
                subject={**subject.description, "made_under": proof.made_under},
                protocol=protocol,
                run={"batch_size": self.options.batch_size, "processes": group.size},
                ledgers=proof.ledgers,
                versions=used,
                warnings=subject.warnings(),
            )
            if is_main_process():
                folder.write_results(finished.results)
                installed_plugins().hook.benchmark_ended(results=finished.results, folder=self.options.folder)
        return finished

    def _protocol(self, subject: Subject) -> dict[str, Any]:
        options, preset = self.options, self.options.attacks.strip()
        protocol = {
            **data_protocol(self.images, options.split),
            **subject.protocol,
            "preset": preset if preset in PRESETS else None,
            "attacks": [attack.settings() for attack in self.attacks.values()],
        }
        if options.source is not None and self.source is not None:
            file, arch, _ = options.source
            normalization = self.source.normalization.describe()
            protocol["source"] = {"sha256": file_sha256(Path(file)), "arch": arch, "normalization": normalization}
        return protocol


def _attacks(options: BenchmarkOptions) -> dict[str, Attack]:
    """Make the attacks, by column."""
    radii = parse_radii(options.attacks, options.eps)
    # The attacks draw with seed 0 for every student: starts in common make students and arms comparable.
    attacks = attack_columns(parse_attacks(options.attacks, options.registry or builtin_registry(), radii))
    for attack in attacks.values():
        for one in (attack, *attack.parts):
            one.check_available()
    transferred = [column for column, attack in attacks.items() if attack.transfer]
    if bool(transferred) != (options.source is not None):
        if transferred:
            raise UnusableInput(f"expected --source, the checkpoint that {', '.join(transferred)} must be made on")
        raise UnusableInput("--source is for transferred attacks, and no attack is transferred: name pgd100-transfer")
    return attacks


def load_pixel_model(file: Path, arch: str, space: InputSpace, images: ImageSet) -> PixelModel:
    """Load the network of a checkpoint, which was trained in the space and must fit the images, for pixels.

    The network is in eval mode, on the CPU. The errors are ``load_checkpoint``'s.
    """
    channels, height, width = images.pixels.shape[1:]
    classes = images.num_classes
    network = load_checkpoint(file, arch, channels=channels, num_classes=classes, im_size=(height, width), space=space)
    return PixelModel(network, space).eval()


def untrained_network(arch: str, images: ImageSet) -> Callable[[], nn.Module]:
    """Return a function that builds an untrained network of an architecture for the images."""
    channels, height, width = images.pixels.shape[1:]
    return partial(build_network, arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))


def given_normalization(text: str | None, images: ImageSet, option: str = "--normalization") -> Normalization:
    """Return the normalization that a user named by an option, or else the one that is usual for the data set."""
    try:
        return normalization_named(images.name) if text is None else parse_normalization(text, images.pixels.shape[1])
    except UnusableInput as error:
        raise UnusableInput(f"{option}: {error}") from error
