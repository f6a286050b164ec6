"""A measurement by the installed robustbench: its arguments checked before, its result read after."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.attacks import parse_eps
from guard_plugin.errors import UnusableInput
from guard_plugin.networks.checks import check_mode
from guard_plugin.robustbench_bridge.model_info import model_info_path
from guard_plugin.robustbench_bridge.repairs import Repair, repaired_robustbench

__all__ = ["DATASETS", "LP_THREATS", "THREAT_MODELS", "Accuracies", "RobustBenchRun", "run_robustbench"]

DATASETS = ("cifar10", "cifar100", "imagenet")
LP_THREATS = ("Linf", "L2")
THREAT_MODELS = (*LP_THREATS, "corruptions", "corruptions_3d")
_MOST_EXAMPLES = {"cifar10": 10000, "cifar100": 10000, "imagenet": 5000}


@dataclass(frozen=True)
class RobustBenchRun:
    """The arguments of ``robustbench.benchmark``, by its names.

    Args:
        dataset: "cifar10", "cifar100" or "imagenet".
        threat_model: "Linf", "L2" or "corruptions"; for imagenet also "corruptions_3d".
        eps: Radius of the ball for Linf (pixel units) and L2; for corruptions None.
        n_examples: The first so many examples; by default all 10000 of CIFAR, and RobustBench's 5000 of ImageNet.
        to_disk: Whether to write ./model_info/DATASET/THREAT_MODEL/MODEL_NAME.json.
        model_name: The file's name; for imagenet, also that of a model in RobustBench's zoo.
        data_dir: Where the images lie: CIFAR as torchvision lays it out, ImageNet in val/CLASS/.
        corruptions_data_dir: Where the corrupted images lie; by default in ``data_dir``.
        batch_size: Examples per pass.
        log_path: A file that AutoAttack's log is added to.
        preprocessing: For imagenet: RobustBench's name, such as "Res256Crop224", or a function on an image.
        aa_state_path: A file that AutoAttack's findings are kept in, and gone on from after a kill.

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
            raise UnusableInput(f"expected RobustBench's {', '.join(DATASETS)} as dataset, got {self.dataset!r}")
        if self.threat_model not in THREAT_MODELS:
            raise UnusableInput(f"unknown threat model {self.threat_model!r}: expected one of {THREAT_MODELS}")
        most = _MOST_EXAMPLES[self.dataset]
        if not 1 <= self.examples <= most:
            raise UnusableInput(f"expected n_examples from 1 to {most} for {self.dataset}, got {self.n_examples}")
        if self.to_disk:
            if self.model_name is None:
                raise UnusableInput("to_disk writes a file that is named after the model: give model_name")
            model_info_path(self.dataset, self.threat_model, self.model_name)
        self._check_threat()
        self._check_preprocessing()

    @property
    def examples(self) -> int:
        """How many examples are measured on."""
        return _MOST_EXAMPLES[self.dataset] if self.n_examples is None else self.n_examples

    @property
    def radius(self) -> float | None:
        """Radius of the ball as a number; None for corruptions."""
        if self.threat_model not in LP_THREATS or self.eps is None:
            return None
        # Euclidean balls may be larger than a pixel's range: RobustBench's own L2 radius on ImageNet is 3.
        radius = parse_eps(self.eps)
        if self.threat_model == "Linf" and radius.value > 1:
            raise UnusableInput(f"expected 0 < eps <= 1 for Linf, in units of pixels in [0, 1], got {radius.text}")
        return radius.value

    def _check_threat(self) -> None:
        if self.threat_model in LP_THREATS:
            if self.radius is None:
                raise UnusableInput(f"threat model {self.threat_model} needs eps, such as 8/255")
            if self.corruptions_data_dir is not None:
                raise UnusableInput(f"corruptions_data_dir has no meaning for threat model {self.threat_model}")
            return
        for name in ("eps", "log_path", "aa_state_path"):
            if getattr(self, name) is not None:
                raise UnusableInput(f"threat model {self.threat_model} takes no {name}: nothing is attacked there")
        if self.threat_model == "corruptions_3d" and self.dataset != "imagenet":
            raise UnusableInput(f"threat model corruptions_3d exists for imagenet only, got {self.dataset}")

    def _check_preprocessing(self) -> None:
        if self.dataset != "imagenet" and self.preprocessing is not None:
            raise UnusableInput(f"preprocessing is for imagenet: {self.dataset} is measured at its own size, as it is")
        if self.dataset == "imagenet" and self.preprocessing is None and self.model_name is None:
            raise UnusableInput(
                "imagenet needs preprocessing, such as 'Res256Crop224', or model_name of a model in RobustBench's zoo"
            )


@dataclass(frozen=True)
class Accuracies:
    """What robustbench found.

    Args:
        clean: Accuracy on the images as they are, a fraction.
        robust: Accuracy in the threat model, a fraction; for corruptions, the mean over kinds and severities.
        repairs: What was mended in robustbench for it.
    """

    clean: float
    robust: float
    repairs: tuple[Repair, ...]


def run_robustbench(model: nn.Module, run: RobustBenchRun, *, device: torch.device, seed: int | None) -> Accuracies:
    """Let the installed robustbench measure a model. What it prints goes to stderr.

    Args:
        model: Takes pixels in [0, 1], normalises inside, returns logits; in eval mode. It is moved to ``device``.
        run: What to measure.
        device: Where to compute.
        seed: Source of AutoAttack's random draws; None for the clock.

    Returns:
        The accuracies.

    Raises:
        UnusableInput: If robustbench, the data or the model cannot be worked with.
    """
    check_mode(model)
    with contextlib.redirect_stdout(sys.stderr), repaired_robustbench(seed=seed) as repaired:
        _check_known(repaired.module, run)
        try:
            clean, robust = repaired.module.benchmark(
                model,
                n_examples=run.examples,
                dataset=run.dataset,
                threat_model=run.threat_model,
                to_disk=run.to_disk,
                model_name=run.model_name,
                data_dir=str(run.data_dir),
                corruptions_data_dir=None if run.corruptions_data_dir is None else str(run.corruptions_data_dir),
                device=device,
                batch_size=run.batch_size,
                eps=run.radius,
                log_path=run.log_path,
                preprocessing=run.preprocessing,
                aa_state_path=None if run.aa_state_path is None else Path(run.aa_state_path),
            )
        except FileNotFoundError as error:
            raise UnusableInput(
                f"robustbench does not find {error.filename} of {run.dataset} in data_dir or corruptions_data_dir; "
                f"nothing is downloaded here: put the files there first"
            ) from error
    return Accuracies(float(clean), float(robust), repaired.repairs)


def _check_known(robustbench: Any, run: RobustBenchRun) -> None:
    """Refuse names that robustbench would look up and not find."""
    known = robustbench.data.PREPROCESSINGS
    if isinstance(run.preprocessing, str) and run.preprocessing not in known:
        names = ", ".join(name for name in known if name)
        raise UnusableInput(f"unknown preprocessing {run.preprocessing!r}: robustbench has {names}")
    if run.dataset == "imagenet" and run.preprocessing is None:
        zoo = robustbench.data.all_models[robustbench.data.BenchmarkDataset(run.dataset)]
        threat = robustbench.data.ThreatModel(run.threat_model.removesuffix("_3d"))
        if run.model_name not in zoo[threat]:
            raise UnusableInput(
                f"model {run.model_name!r} is not in RobustBench's zoo for {run.threat_model} on imagenet, "
                f"so its preprocessing is unknown: give preprocessing, such as 'Res256Crop224'"
            )
