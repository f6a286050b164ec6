"""What keeps robustbench 1.1.1 from working with what pip installs beside it, mended in memory for a while."""

import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge.autoattack import AutoAttack, autoattack_modules
from guard_plugin.robustbench_bridge.datasets import CIFAR, clean_loader, corrupted_loader
from guard_plugin.robustbench_bridge.model_info import write_model_info
from guard_plugin.robustbench_bridge.packages import is_missing, pkg_resources_module, required
from guard_plugin.robustbench_bridge.state import ReportedState
from guard_plugin.robustbench_bridge.substitutes import provided_modules, replaced_attribute, replaced_item

__all__ = ["Repair", "RepairedRobustBench", "repaired_robustbench"]


@dataclass(frozen=True)
class Repair:
    """One thing that was mended.

    Args:
        name: What, in a word or two.
        why: What is wrong without it, and what was done.
    """

    name: str
    why: str


@dataclass(frozen=True)
class RepairedRobustBench:
    """The package while it is repaired.

    Args:
        module: The imported package ``robustbench``.
        repairs: What was mended.
    """

    module: ModuleType
    repairs: tuple[Repair, ...]


@contextmanager
def repaired_robustbench(*, seed: int | None = None) -> Iterator[RepairedRobustBench]:
    """Import the installed robustbench and mend it, until the context ends; each repair is told on stderr.

    Nothing on the disk is changed and no network is used. Afterwards every name is what it was; robustbench itself
    stays imported, as after any import.

    Args:
        seed: Source of AutoAttack's random draws; the clock by default, as in robustbench.

    Yields:
        The package, and what was mended.

    Raises:
        UnusableInput: If robustbench or something it needs is not installed, or is of a version with other names.
    """
    with ExitStack() as stack:
        repairs = _provide_missing(stack)
        module = _robustbench()
        repairs += _mend(stack, seed)
        for repair in repairs:
            print(f"guard: robustbench repaired in memory, {repair.name}: {repair.why}", file=sys.stderr)
        yield RepairedRobustBench(module, tuple(repairs))


def _robustbench() -> ModuleType:
    module = required("robustbench")
    installed = any(importlib.metadata.distributions(name="robustbench"))
    if not installed or not hasattr(module, "benchmark"):
        raise UnusableInput(
            f"expected the package robustbench, but {module.__file__} is another one of that name: torchattacks 3.5.1 "
            f"brings such a copy, without the benchmark, and overwrites the real one if it is installed later. "
            f"Put the real one in its place: pip install --force-reinstall --no-deps robustbench==1.1.1"
        )
    return module


def _provide_missing(stack: ExitStack) -> list[Repair]:
    """Stand-ins for modules that robustbench imports and that nothing installed provides."""
    repairs = []
    if is_missing("pkg_resources"):
        stack.enter_context(provided_modules({"pkg_resources": pkg_resources_module()}))
        why = "robustbench.loaders imports it, and setuptools has none since version 81; its one function is provided"
        repairs.append(Repair("pkg_resources", why))
    if is_missing("autoattack"):
        stack.enter_context(provided_modules(autoattack_modules()))
        why = "robustbench.eval imports it, and nothing that robustbench requires provides it; pyautoattack stands in"
        repairs.append(Repair("autoattack", why))
    return repairs


def _mend(stack: ExitStack, seed: int | None) -> list[Repair]:
    """Replace what fails when it is called."""
    data, evaluation = required("robustbench.data"), required("robustbench.eval")
    for member, dataset in CIFAR.items():
        key = getattr(data.BenchmarkDataset, member)
        corrupted = data.CORRUPTION_DATASET_LOADERS[key]
        stack.enter_context(replaced_item(data._clean_dataset_loaders, key, clean_loader(data, dataset)))
        stack.enter_context(replaced_item(corrupted, data.ThreatModel.corruptions, corrupted_loader(data, key)))
    substitutes = {
        "AutoAttack": functools.partial(AutoAttack, seed=seed),
        "EvaluationState": ReportedState,
        "corruptions_evaluation": _without_alexnet(evaluation.corruptions_evaluation),
        "update_json": _update_json,
    }
    for name, substitute in substitutes.items():
        stack.enter_context(replaced_attribute("robustbench.eval", name, substitute))
    draws = "seeded by the clock" if seed is None else f"seed {seed}"
    version = importlib.metadata.version("pyautoattack")
    return [
        Repair("AutoAttack", f"robustbench calls the old interface; it is mapped to pyautoattack {version}, {draws}"),
        Repair("aa_state_path", "a saved state cannot be read back, and the mean of its flags fails; it is kept anew"),
        Repair("CIFAR loaders", "they download what they do not find; the files in data_dir are read, and only those"),
        Repair(
            "CIFAR-C loaders", "they download, and do not take the argument prepr= that they are called with; mended"
        ),
        Repair(
            "corruptions", "the mCE divides by AlexNet's errors, which are not installed along; without them, left out"
        ),
        Repair("model_info", "the file is written in one go, also without an mCE; its format is RobustBench's"),
    ]


def _without_alexnet(evaluate: Callable[..., tuple[float, float]]) -> Callable[..., tuple[float, float | None]]:
    """Evaluate on corruptions by robustbench, which measures everything before it fails for want of AlexNet's row."""

    def evaluate_corruptions(*arguments: Any) -> tuple[float, float | None]:
        measured: list[float] = []
        clean_accuracy = required("robustbench.utils").clean_accuracy

        def recorded(*args: Any, **kwargs: Any) -> float:
            measured.append(clean_accuracy(*args, **kwargs))
            return measured[-1]

        with replaced_attribute("robustbench.eval", "clean_accuracy", recorded):
            try:
                return evaluate(*arguments)
            except KeyError as missing:
                if missing.args != ("AlexNet",):
                    raise
                # Each corruption and severity counts alike, as in robustbench.
                return sum(measured) / len(measured), None

    return evaluate_corruptions


def _update_json(
    dataset: Any,
    threat_model: Any,
    model_name: str,
    accuracy: float,
    adv_accuracy: float,
    eps: float | None,
    extra_metrics: dict[str, float | None],
) -> Path:
    return write_model_info(
        dataset.value,
        threat_model.value,
        model_name,
        clean=accuracy,
        robust=adv_accuracy,
        eps=eps,
        mce=extra_metrics.get("corruptions_mce"),
    )
