"""A measurement by the installed robustbench: its arguments are checked before it begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.attacks import parse_eps
from guard_plugin.errors import UnusableInput, unknown
from guard_plugin.files import read_json_object
from guard_plugin.networks.pixel_model import check_mode
from guard_plugin.robustbench_bridge.checks import CLASSES, check_class_folders, checked_model
from guard_plugin.robustbench_bridge.model_info import THREAT_MODELS, model_info_path
from guard_plugin.robustbench_bridge.repairs import Repair, check_corrupted, repaired_robustbench

__all__ = ["DATASETS", "RobustBenchRun", "run_robustbench"]

DATASETS = {"cifar10": 10000, "cifar100": 10000, "imagenet": 5000}
"""RobustBench's data sets, with how many examples it measures on at most."""

_LP_THREATS = ("Linf", "L2")


@dataclass(frozen=True)
class RobustBenchRun:
    """The arguments of ``guard_plugin.benchmark`` that robustbench takes, under the same names.

    Raises:
        UnusableInput: If a value is unknown, or contradicts another one.
    """

    dataset: str
    threat_model: str
    eps: str | float | None = None
    n_examples: int | None = None
    to_disk: bool = False
    model_name: str | None = None
    data_dir: Path | str = "./data"
    corruptions_data_dir: Path | str | None = None
    batch_size: int = 32
    log_path: Path | str | None = None
    preprocessing: str | Callable[..., Any] | None = None
    aa_state_path: Path | str | None = None

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise UnusableInput(unknown("data set of RobustBench", self.dataset, tuple(DATASETS)))
        if self.threat_model not in THREAT_MODELS:
            raise UnusableInput(unknown("threat model", self.threat_model, THREAT_MODELS))
        most = DATASETS[self.dataset]
        if not 1 <= self.examples <= most:
            raise UnusableInput(f"expected n_examples from 1 to {most} for {self.dataset}, got {self.n_examples}")
        if self.to_disk:
            if self.model_name is None:
                raise UnusableInput("to_disk writes a file that is named after the model: give model_name")
            model_info_path(self.dataset, self.threat_model, self.model_name)
        self._check_threat()
        if self.dataset != "imagenet" and self.preprocessing is not None:
            raise UnusableInput(f"preprocessing is for imagenet: {self.dataset} is measured at its own size, as it is")
        if self.dataset == "imagenet" and self.preprocessing is None and self.model_name is None:
            raise UnusableInput(
                "imagenet needs preprocessing, such as 'Res256Crop224', or model_name of a model in RobustBench's zoo"
            )

    @property
    def examples(self) -> int:
        """Return how many examples are measured on."""
        return DATASETS[self.dataset] if self.n_examples is None else self.n_examples

    @property
    def radius(self) -> float | None:
        """Return the radius of the ball as a number; None for corruptions."""
        if self.threat_model not in _LP_THREATS or self.eps is None:
            return None
        # Euclidean balls may be larger than a pixel's range: RobustBench's own L2 radius on ImageNet is 3.
        radius = parse_eps(self.eps)
        if self.threat_model == "Linf" and radius.value > 1:
            raise UnusableInput(f"expected 0 < eps <= 1 for Linf, in units of pixels in [0, 1], got {radius.text}")
        return radius.value

    def _check_threat(self) -> None:
        attacked = self.threat_model in _LP_THREATS
        if attacked and self.radius is None:
            raise UnusableInput(f"threat model {self.threat_model} needs eps, such as 8/255")
        for name in ("corruptions_data_dir",) if attacked else ("eps", "log_path", "aa_state_path"):
            if getattr(self, name) is not None:
                raise UnusableInput(f"{name} has no meaning for threat model {self.threat_model}")
        if self.threat_model == "corruptions_3d" and self.dataset != "imagenet":
            raise UnusableInput(f"threat model corruptions_3d exists for imagenet only, got {self.dataset}")


def run_robustbench(
    model: nn.Module, run: RobustBenchRun, *, device: torch.device, seed: int | None
) -> tuple[float, float, tuple[Repair, ...]]:
    """Let the installed robustbench measure a model on ``device``. What it prints goes to stderr.

    Returns:
        The accuracy on the images as they are and that in the threat model, as fractions (for corruptions, the mean
        over kinds and severities), and what was mended in robustbench.

    Raises:
        UnusableInput: If robustbench, the data or the model cannot be worked with.
    """
    check_mode(model)
    arguments = vars(run) | {"n_examples": run.examples, "eps": run.radius, "data_dir": str(run.data_dir)}
    attacked = run.threat_model in _LP_THREATS
    with redirect_stdout(sys.stderr), repaired_robustbench(seed=seed) as (robustbench, repairs):
        _check_known(robustbench.data, run)
        _check_files(robustbench, run)
        with checked_model(robustbench.eval, CLASSES[run.dataset], attacked=attacked):
            try:
                clean, robust = robustbench.benchmark(model, device=device, **arguments)
            except OSError as error:
                reason = str(error).strip().splitlines()[-1]  # below the traceback of a process that reads images
                raise UnusableInput(
                    f"robustbench misses a file or cannot read it ({reason}): nothing is downloaded here, put the "
                    f"files of {run.dataset} into data_dir and corruptions_data_dir first"
                ) from error
    return float(clean), float(robust), repairs


def _check_known(data: Any, run: RobustBenchRun) -> None:
    """Refuse names that robustbench would not find in its tables."""
    if isinstance(run.preprocessing, str) and run.preprocessing not in data.PREPROCESSINGS:
        names = ", ".join(name for name in data.PREPROCESSINGS if name)
        raise UnusableInput(f"unknown preprocessing {run.preprocessing!r}: robustbench has {names}")
    if run.dataset == "imagenet" and run.preprocessing is None:
        zoo = data.all_models[data.BenchmarkDataset(run.dataset)]
        threat = data.ThreatModel(run.threat_model.removesuffix("_3d"))
        if run.model_name not in zoo[threat]:
            where = f"RobustBench's zoo for {run.threat_model} on imagenet"
            raise UnusableInput(f"{run.model_name!r} is not in {where}: give preprocessing, such as 'Res256Crop224'")


def _check_files(robustbench: Any, run: RobustBenchRun) -> None:
    """Refuse folders and files that robustbench would stumble over in the middle, or misread."""
    data = robustbench.data
    member, threat = data.BenchmarkDataset(run.dataset), data.ThreatModel(run.threat_model)
    root = Path(run.data_dir if run.corruptions_data_dir is None else run.corruptions_data_dir)
    corruptions = () if run.threat_model in _LP_THREATS else data.CORRUPTIONS_DICT[member][threat]
    if run.dataset != "imagenet":
        if corruptions:
            check_corrupted(data, member, run.examples, root, corruptions)
        return
    numbers = Path(str(robustbench.__file__)).parent / "helper_files" / "imagenet_class_to_id_map.json"
    folders = [Path(run.data_dir) / "val"]
    for name in corruptions:
        kind = root / data.CORRUPTIONS_DIR_NAMES[member][threat] / name
        folders += [kind / str(severity) for severity in range(1, 6)]
    check_class_folders(folders, read_json_object(numbers))
