"""The faults that keep robustbench 1.1.1 from working with what pip installs beside it, and their repairs in memory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from torch import Tensor

from guard_plugin.datasets import load_images
from guard_plugin.errors import UnusableInput
from guard_plugin.optional import require
from guard_plugin.robustbench_bridge.autoattack import AutoAttack, finished_state, other_versions_refused
from guard_plugin.robustbench_bridge.checks import CLASSES, check_corrupted_files
from guard_plugin.robustbench_bridge.model_info import write_model_info

__all__ = ["CIFAR", "Repair", "check_corrupted", "load_clean", "load_corrupted", "repaired_robustbench"]

CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""RobustBench's name of a data set -> guard-plugin's name."""

_LOGGER = logging.getLogger("guard_plugin")
_told: set[str] = set()  # names of repairs

_required = partial(require, needed_by="RobustBench's measurement")

_STATE = SimpleNamespace(from_disk=finished_state)
# Modules that robustbench imports and that may not be installed, with what it takes from them.
_PKG_RESOURCES = {
    "pkg_resources": SimpleNamespace(
        resource_filename=lambda module, name: str(Path(str(sys.modules[module].__file__)).parent / name)
    )
}
_AUTOATTACK = {
    "autoattack": SimpleNamespace(AutoAttack=AutoAttack),
    "autoattack.state": SimpleNamespace(EvaluationState=_STATE),
}


@dataclass(frozen=True)
class Repair:
    """One thing that was mended.

    Args:
        name: What was mended, in a word or two.
        why: What is wrong without the repair, and what was done.
    """

    name: str
    why: str


@contextmanager
def repaired_robustbench(*, seed: int | None = None) -> Iterator[tuple[Any, tuple[Repair, ...]]]:
    """Import the installed robustbench and mend it until the context ends; the logger "guard_plugin" tells what, once.

    Nothing on the disk is changed and no network is used. Afterwards every name is what it was; robustbench itself
    stays imported, as after any import.

    Args:
        seed: Source of AutoAttack's random draws; the clock by default, as in robustbench.

    Yields:
        The package ``robustbench``, and what was mended.

    Raises:
        UnusableInput: If robustbench or something it needs is not installed, or is of a version with other names.
    """
    with ExitStack() as stack:
        why = "robustbench.loaders imports it, and setuptools has none since version 81; its one function is provided"
        repairs = _provide(stack, _PKG_RESOURCES, why)
        why = "robustbench.eval imports it, and nothing that robustbench requires provides it; pyautoattack stands in"
        repairs += _provide(stack, _AUTOATTACK, why)
        robustbench = _robustbench()
        with other_versions_refused():
            repairs += _mend(stack, seed)
        for repair in repairs:
            _log(repair)
        yield robustbench, tuple(repairs)


def _log(repair: Repair) -> None:
    """Tell the first time that a thing was mended."""
    if repair.name not in _told:
        _told.add(repair.name)
        _LOGGER.info("robustbench repaired in memory, %s: %s", repair.name, repair.why)


def _provide(stack: ExitStack, modules: dict[str, Any], why: str) -> list[Repair]:
    """Let ``import`` find modules, if they are not installed."""
    name = next(iter(modules))
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return []
    # patch.dict(sys.modules) would also forget what is imported in the meantime.
    sys.modules.update(modules)
    for provided in modules:
        stack.callback(sys.modules.pop, provided, None)
    return [Repair(name, why)]


def _robustbench() -> Any:
    module = _required("robustbench")
    installed = any(importlib.metadata.distributions(name="robustbench"))
    if not installed or not hasattr(module, "benchmark"):
        raise UnusableInput(
            f"expected the package robustbench, but {module.__file__} is another one of that name: torchattacks 3.5.1 "
            f"brings such a copy, without the benchmark, and overwrites the real one if it is installed later. "
            f"Put the real one in its place: pip install --force-reinstall --no-deps robustbench==1.1.1"
        )
    return module


def _mend(stack: ExitStack, seed: int | None) -> list[Repair]:
    """Replace what fails when it is called."""
    data, evaluation = _required("robustbench.data"), _required("robustbench.eval")
    for name, dataset in CIFAR.items():
        member = data.BenchmarkDataset(name)
        corrupted = {data.ThreatModel.corruptions: partial(load_corrupted, data, member)}
        stack.enter_context(patch.dict(data._clean_dataset_loaders, {member: partial(load_clean, data, dataset)}))
        stack.enter_context(patch.dict(data.CORRUPTION_DATASET_LOADERS[member], corrupted))
    substitutes = {
        "AutoAttack": partial(AutoAttack, seed=seed),
        "EvaluationState": _STATE,
        "corruptions_evaluation": partial(_without_alexnet, evaluation, evaluation.corruptions_evaluation),
        "update_json": _update_json,
    }
    for name, substitute in substitutes.items():
        stack.enter_context(patch.object(evaluation, name, substitute))
    draws = "seeded by the clock" if seed is None else f"seed {seed}"
    version = importlib.metadata.version("pyautoattack")
    reasons = {
        "AutoAttack": f"robustbench calls the old interface; it is mapped to pyautoattack {version}, {draws}",
        "aa_state_path": "a saved state cannot be read back, and the mean of its flags fails; it is kept anew",
        "CIFAR loaders": "they download what they do not find; the files in data_dir are read, and only those",
        "CIFAR-C loaders": "they download, and do not take the argument prepr= that they are called with; mended",
        "corruptions": "the mCE divides by AlexNet's errors, which are not installed along; without them, left out",
        "model_info": "the file is written in one go, also without an mCE; its format is RobustBench's",
    }
    return [Repair(name, why) for name, why in reasons.items()]


def _without_alexnet(evaluation: Any, evaluate: Callable[..., Any], *arguments: Any) -> Any:
    """Let robustbench evaluate on corruptions; it measures everything before it fails for want of AlexNet's row."""
    measured: list[float] = []
    clean_accuracy = evaluation.clean_accuracy

    def recorded(*args: Any, **kwargs: Any) -> float:
        measured.append(clean_accuracy(*args, **kwargs))
        return measured[-1]

    with patch.object(evaluation, "clean_accuracy", recorded):
        try:
            return evaluate(*arguments)
        except KeyError as missing:
            if missing.args != ("AlexNet",):
                raise
            # Each corruption and severity counts alike, as in robustbench.
            return sum(measured) / len(measured), None


def _update_json(
    dataset: Any, threat: Any, model_name: str, clean: float, robust: float, eps: float | None, metrics: dict[str, Any]
) -> None:
    mce = metrics.get("corruptions_mce")
    write_model_info(dataset.value, threat.value, model_name, clean=clean, robust=robust, eps=eps, mce=mce)


def load_clean(
    data: Any, dataset: str, n_examples: int | None, data_dir: Path | str, prepr: Any
) -> tuple[Tensor, Tensor]:
    """Load the clean test images of ``dataset``, guard-plugin's name, which robustbench.data would download."""
    if prepr is not data.PREPROCESSINGS[None]:
        raise UnusableInput(f"preprocessing is for imagenet: {dataset} is measured at its own size, as it is")
    images = load_images(dataset, data_dir, "test", n_examples)
    return images.pixels, images.labels


def load_corrupted(
    data: Any, member: Any, n_examples: int, severity: int, data_dir: Path | str, corruptions: Sequence[str], **_: Any
) -> tuple[Tensor, Tensor]:
    """Refuse unusable files, and missing ones, which robustbench would download; let it read the others."""
    check_corrupted(data, member, n_examples, data_dir, corruptions)
    loaded: tuple[Tensor, Tensor] = data.load_corruptions_cifar(member, n_examples, severity, data_dir, corruptions)
    return loaded


def check_corrupted(data: Any, member: Any, n_examples: int, data_dir: Path | str, corruptions: Sequence[str]) -> None:
    """Refuse files of CIFAR's corruptions that are missing, damaged or others."""
    folder = Path(data_dir) / data.CORRUPTIONS_DIR_NAMES[member][data.ThreatModel.corruptions]
    fix = (
        f"nothing is downloaded here, put the files of {folder.name} (zenodo.org, record "
        f"{data.ZENODO_CORRUPTIONS_LINKS[member][0]}) there"
    )
    check_corrupted_files(folder, corruptions, n_examples, CLASSES[member.value], fix)
