"""The function ``guard_plugin.benchmark``: it measures one model in pixel space, clean and under attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.attacks import Attack, parse_attacks, parse_radii
from guard_plugin.attacks.registry import usual_attacks
from guard_plugin.datasets import images_from_tensors, load_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import usable_device
from guard_plugin.evaluation.engine import CLEAN, evaluate_model
from guard_plugin.evaluation.records import Record
from guard_plugin.evaluation.results import attack_columns, worst_cases
from guard_plugin.evaluation.warnings import find_warnings, near_chance
from guard_plugin.networks.pixel_model import device_of
from guard_plugin.plugins import installed_plugins
from guard_plugin.robustbench_bridge import DATASETS, Repair, RobustBenchRun, run_robustbench
from guard_plugin.robustbench_bridge.checks import CLASSES
from guard_plugin.robustbench_bridge.model_info import model_info_path, write_model_info
from guard_plugin.versions import require_torch_to_benchmark

__all__ = ["BenchmarkResult", "benchmark"]

_STANDARD_ATTACK = {"Linf": "autoattack", "L2": "autoattack-l2"}


@dataclass(frozen=True)
class BenchmarkResult:
    """Accuracies of one model, as fractions. Unpacks as RobustBench's result does: ``clean, robust = result``.

    Args:
        clean_accuracy: Share of the images that the model classifies correctly as they are.
        robust_accuracy: Attack -> share of the images that it classifies correctly before and after the attack. For
            corruptions, the one entry is the mean over kinds and severities.
        worst_case: Share that it classifies correctly before and after every attack in one ball, that of the first
            attack; for corruptions, that mean.
        worst_cases: The same for every ball.
        repairs: What was mended in robustbench, where robustbench measured.
        flags: Warnings that the robustness may be only apparent, each "COLUMN: REASON"; where robustbench measured,
            that clean accuracy is next to chance, and no others.
    """

    clean_accuracy: float
    robust_accuracy: dict[str, float]
    worst_case: float
    worst_cases: dict[str, float] = field(default_factory=dict)
    repairs: tuple[Repair, ...] = ()
    flags: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[float]:
        """Clean accuracy, then the accuracy in the threat model."""
        return iter((self.clean_accuracy, self.worst_case))


def benchmark(
    model: nn.Module,
    *,
    dataset: str | Enum | tuple[Tensor, Tensor],
    threat_model: str | Enum | None = None,
    eps: str | float | None = None,
    data_dir: Path | str | None = None,
    attacks: str | None = None,
    n_examples: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | str | None = None,
    registry: Mapping[str, type[Attack]] | None = None,
    to_disk: bool = False,
    model_name: str | None = None,
    corruptions_data_dir: Path | str | None = None,
    log_path: Path | str | None = None,
    preprocessing: str | Callable[..., Any] | None = None,
    aa_state_path: Path | str | None = None,
) -> BenchmarkResult:
    """Measure one classifier's accuracy, clean and under attack.

    The installed robustbench measures, mended in memory, if ``dataset`` is one of its own ("cifar10", "cifar100",
    "imagenet"), ``threat_model`` is given and ``attacks`` is not. Otherwise guard-plugin's own attacks measure, and
    "cifar10" and "cifar100" are CIFAR10 and CIFAR100.

    Args:
        model: Takes pixels in [0, 1] of shape (n, channels, height, width), normalises inside, returns logits; in eval
            mode and deterministic.
        dataset: A name that ``load_images`` knows (its test split), RobustBench's name or enum member, or pixels in
            [0, 1] with int64 labels.
        threat_model: RobustBench's: "Linf" or "L2", and for its own data sets "corruptions" or "corruptions_3d".
        eps: Radius of the ball, in pixel units for Linf: a number, or text such as "8/255"; by default, the preset's
            (1/255 for "quick"). Not for corruptions.
        data_dir: Where the data set lies; for robustbench ./data by default.
        attacks: A comma list such as "fgsm,pgd100", or a preset. By default AutoAttack where ``threat_model`` is given,
            and "quick" where it is not.
        n_examples: The first so many examples; all by default, of imagenet RobustBench's 5000.
        batch_size: Examples per pass.
        seed: Source of the attacks' random draws.
        device: Where to compute; by default, where the model is. The model is moved there.
        registry: Attack classes by family; by default those of all installed plugins.
        to_disk: Write ./model_info/DATASET/THREAT_MODEL/MODEL_NAME.json in RobustBench's format.
        model_name: The name of that file; for imagenet, also that of a model in RobustBench's zoo.
        corruptions_data_dir: Where corrupted images lie; by default in ``data_dir``.
        log_path: A file that robustbench's AutoAttack adds its log to.
        preprocessing: For imagenet: RobustBench's name, such as "Res256Crop224", or a function on an image.
        aa_state_path: A file in which robustbench's AutoAttack keeps its findings, to go on after a kill.

    Returns:
        The accuracies.

    Raises:
        UnusableInput: If an argument, the data or the model cannot be worked with, or arguments contradict each other.
        AuditFailure: If an attack breaks its own bounds.
    """
    require_torch_to_benchmark()
    _check_types(model, dataset, eps, n_examples=n_examples, batch_size=batch_size)
    data: str | tuple[Tensor, Tensor] = dataset.value if isinstance(dataset, Enum) else dataset
    threat = threat_model.value if isinstance(threat_model, Enum) else threat_model
    place = usable_device(device_of(model) if device is None else device)
    for_robustbench: dict[str, Any] = {
        "corruptions_data_dir": corruptions_data_dir,
        "log_path": log_path,
        "preprocessing": preprocessing,
        "aa_state_path": aa_state_path,
    }
    if isinstance(data, str) and data in DATASETS and threat is not None and attacks is None:
        _refuse(f"where robustbench measures, as it does {data} without attacks", registry=registry)
        folder = "./data" if data_dir is None else data_dir
        run = RobustBenchRun(
            data, threat, eps, n_examples, to_disk, model_name, folder, batch_size=batch_size, **for_robustbench
        )
        clean, robust, repairs = run_robustbench(model, run, device=place, seed=seed)
        column, flags = _STANDARD_ATTACK.get(threat, threat), _flags(*near_chance(clean, CLASSES[data]))
        return BenchmarkResult(clean, {column: robust}, robust, repairs=repairs, flags=flags)
    _refuse(
        f"where guard-plugin measures: robustbench does only {', '.join(DATASETS)}, with threat_model, without attacks",
        **for_robustbench,
    )
    chosen = _attacks(data, threat, attacks, eps, registry, seed)
    file = _file_name(data, threat, attacks, model_name) if to_disk else None
    if isinstance(data, str):
        images = load_images(data, data_dir, "test", n_examples)
    else:
        images = images_from_tensors(*data, n_examples)
    measured = evaluate_model(lambda: model.to(place), images, chosen, batch_size=batch_size, device=place)
    result = _summary(measured, chosen, images.num_classes)
    if file is not None:
        (attack,) = chosen.values()
        write_model_info(*file, clean=result.clean_accuracy, robust=result.worst_case, eps=attack.eps.value)
    return result


def _check_types(model: object, dataset: object, eps: object, **counts: object) -> None:
    """Refuse types that would otherwise fail with a traceback far from the mistake."""
    if not isinstance(model, nn.Module):
        raise UnusableInput(f"expected the model to be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(dataset, tuple) and not (len(dataset) == 2 and all(isinstance(part, Tensor) for part in dataset)):
        raise UnusableInput("expected dataset to be a name, or pixels and labels as two tensors: torch.from_numpy(...)")
    if eps is not None and not isinstance(eps, (str, int, float)):
        raise UnusableInput(f"expected one eps, a number or text such as '8/255', got {eps!r}")
    for name, count in counts.items():
        if count is not None and not (isinstance(count, int) and count >= 1):
            raise UnusableInput(f"expected {name} as a whole number >= 1, got {count!r}")


def _summary(records: Mapping[str, Record], attacks: Mapping[str, Attack], num_classes: int) -> BenchmarkResult:
    correct = {column: records[column].correct for column in (CLEAN, *attacks)}
    warnings = find_warnings([records], attacks, correct, num_classes)
    worst = {column: float(outcomes.mean()) for column, outcomes in worst_cases(correct, attacks).items()}
    robust = {column: float(outcomes.mean()) for column, outcomes in correct.items()}
    clean = robust.pop(CLEAN)
    flags = _flags(*((warning["column"], warning["reason"]) for warning in warnings))
    return BenchmarkResult(clean, robust, next(iter(worst.values())), worst, flags=flags)


def _flags(*warnings: tuple[str, str]) -> tuple[str, ...]:
    return tuple(f"{column}: {reason}" for column, reason in warnings)


def _attacks(
    dataset: str | tuple[Tensor, Tensor],
    threat: str | None,
    attacks: str | None,
    eps: str | float | None,
    registry: Mapping[str, type[Attack]] | None,
    seed: int,
) -> dict[str, Attack]:
    """Return the attacks by column: those that are asked for, or the threat model's."""
    if threat is None:
        if attacks is None and isinstance(dataset, str) and dataset in DATASETS:
            raise UnusableInput(f"{dataset} is RobustBench's name: give threat_model, such as 'Linf', or attacks")
        spec = "quick" if attacks is None else attacks
    elif threat in _STANDARD_ATTACK:
        spec = _STANDARD_ATTACK[threat] if attacks is None else attacks
    else:
        raise UnusableInput(
            f"expected threat model {' or '.join(_STANDARD_ATTACK)} here, got {threat!r}: corruptions are measured by "
            f"robustbench alone, on {', '.join(DATASETS)}, without attacks"
        )
    families = registry or installed_plugins().attack_classes
    spec = usual_attacks(spec, families)
    radii = parse_radii(spec, None if eps is None else [eps])
    chosen = attack_columns(parse_attacks(spec, families, radii, seed))
    if any(attack.transfer for attack in chosen.values()):
        raise UnusableInput("transferred attacks need a source model: use guard benchmark --source")
    others = [column for column, attack in chosen.items() if threat is not None and attack.norm != threat.lower()]
    if others:
        raise UnusableInput(f"threat model {threat} contradicts the norm of these attacks: {', '.join(others)}")
    return chosen


def _file_name(dataset: Any, threat: str | None, attacks: str | None, model_name: str | None) -> tuple[str, str, str]:
    """Return data set, threat model and model, after which the file of results is named."""
    if not isinstance(dataset, str) or threat is None or model_name is None or attacks is not None:
        raise UnusableInput(
            "to_disk writes an accuracy under AutoAttack, named after data set, threat model and model: "
            "expected dataset as a name, threat_model and model_name, and no attacks"
        )
    model_info_path(dataset, threat, model_name)
    return dataset, threat, model_name


def _refuse(where: str, **arguments: object) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise UnusableInput(f"{', '.join(given)} has no meaning {where}")
