"""A run of a benchmark, from its options to results.json, over one process or several."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from guard_plugin.attacks import PRESETS, Attack, builtin_registry, check_classes, parse_attacks, parse_radii
from guard_plugin.datasets import ImageSet, load_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import joined_group, usable_device
from guard_plugin.evaluation.engine import evaluate_model
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.options import BenchmarkOptions
from guard_plugin.evaluation.pixel_models import given_normalization, load_pixel_model
from guard_plugin.evaluation.results import FinishedBenchmark, attack_columns, data_protocol, finish, versions
from guard_plugin.evaluation.subject import Subject
from guard_plugin.files import file_sha256
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.ranks import is_main_process

__all__ = ["BenchmarkRun"]

# Records of one version do not go with those of another.
_SOFTWARE = ("guard_plugin", "torch", "pyautoattack", "torchattacks", "device")


@dataclass(frozen=True)
class BenchmarkRun:
    """A benchmark that is ready to measure: its options, with everything that they name loaded and checked.

    Args:
        options: What the user chose.
        attacks: The attacks by column.
        device: The device that computes.
        images: The examples.
        source: The model on which transferred attacks are made, in pixel space; None without such attacks.
    """

    options: BenchmarkOptions
    attacks: Mapping[str, Attack]
    device: torch.device
    images: ImageSet
    source: PixelModel | None

    @classmethod
    def prepared(cls, options: BenchmarkOptions) -> "BenchmarkRun":
        """Load and check what the options name; nothing is written.

        Raises:
            UnusableInput: If the attacks, a radius, the device, the data or the source cannot be used, the package of
                an attack is not installed, or there are transferred attacks without a source or the other way round.
            UnsafeFile: If reading the checkpoint of the source would run code.
        """
        attacks = _attacks(options)
        device = usable_device(options.device)
        images = load_images(options.dataset, options.data_dir, options.split, options.n_examples)
        check_classes(attacks, images.num_classes)
        source = None
        if options.source is not None:
            file, arch, normalization = options.source
            source = load_pixel_model(file, arch, given_normalization(normalization, images), images)
        return cls(options, attacks, device, images, source)

    def measure(self, subject: Subject) -> FinishedBenchmark:
        """Measure every network of the subject and write results.json; continue where an earlier run stopped.

        Raises:
            UnusableInput: If the folder or a network cannot be used.
            AuditFailure: If an attack breaks its own bounds.
        """
        folder = BenchmarkFolder(self.options.out, examples=len(self.images.labels))
        protocol, used = self._protocol(subject), versions(self.device)
        fingerprint = {**protocol, **subject.identity, "software": {name: used[name] for name in _SOFTWARE}}
        with joined_group() as group, ExitStack() as claim:
            group.first(lambda: claim.enter_context(folder.claimed(fingerprint)))
            subject.prepare(folder, group, self.device)
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
                )
                for k in range(subject.count)
            ]
            finished = finish(
                records,
                self.attacks,
                self.images.num_classes,
                subject=subject.description,
                protocol=protocol,
                run={"batch_size": self.options.batch_size, "processes": group.size},
                ledger=self.options.ledger,
                versions=used,
            )
            if is_main_process():
                folder.write_results(finished.results)
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
            protocol["source"] = {"sha256": file_sha256(file), "arch": arch, "normalization": normalization}
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
        needed = f"{', '.join(transferred)} need a source model" if transferred else "no attack is transferred"
        raise UnusableInput(f"{needed}: --source and attacks such as pgd100-transfer go together")
    return attacks
