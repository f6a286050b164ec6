"""The benchmark of networks that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.options import FOR_STUDENTS, BenchmarkOptions
from guard_plugin.evaluation.proof import made_under
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.run import BenchmarkRun, Subject, given_normalization, load_pixel_model
from guard_plugin.files import joint_sha256
from guard_plugin.networks.checkpoints import checkpoint_subject

__all__ = ["benchmark_checkpoints"]


def benchmark_checkpoints(checkpoints: Sequence[Path | str], options: BenchmarkOptions) -> FinishedBenchmark:
    """Measure networks, each from its checkpoint; continue where an earlier run of the same protocol stopped.

    Several checkpoints of one architecture, such as those of several seeds, are measured together, as students are.
    Writes ``out/results.json``, and an outcome per example, network and column in ``out/records/``.

    Raises:
        UnusableInput: If an option, the data, a checkpoint or the folder cannot be used.
        UnsafeFile: If reading a checkpoint would run code.
        AuditFailure: If an attack breaks its own bounds.
    """
    options.refuse(FOR_STUDENTS, belong_to="distilled sets")
    files = [Path(file) for file in checkpoints]
    described = [checkpoint_subject(file) for file in files]
    hashes = [one["sha256"] for one in described]
    if not files or len(set(hashes)) < len(files):
        raise UnusableInput(f"expected at least one checkpoint, all different, got {', '.join(map(str, files))}")
    # "sha256" is as for several distilled files (``subject_of``).
    sha256 = joint_sha256((file.name, file) for file in files)
    several = {**described[0], "sha256": sha256, "files": [one["path"] for one in described]}
    run = BenchmarkRun(options)
    space = given_normalization(options.normalization, run.images)
    subject = _Checkpoints(
        description={**(described[0] if len(files) == 1 else several), "made_under": made_under(files)},
        protocol={"arch": options.arch, "normalization": space.describe(), "recipe": None, "seeds": len(files)},
        identity={"checkpoint_sha256": hashes},
        models=[load_pixel_model(file, options.arch, space, run.images) for file in files],
    )
    return run.measure(subject)


@dataclass(frozen=True)
class _Checkpoints(Subject):
    models: Sequence[nn.Module]

    def pixel_model(self, folder: BenchmarkFolder, k: int) -> nn.Module:
        return self.models[k]
