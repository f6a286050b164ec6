"""The public one-liner: one model in pixel space, clean and under attack."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.attacks import Attack, parse_attacks, parse_eps
from guard_plugin.evaluation.datasets import images_from_tensors, load_images
from guard_plugin.evaluation.engine import CLEAN, evaluate_model
from guard_plugin.evaluation.results import attack_columns, worst_cases
from guard_plugin.plugins import Plugins

__all__ = ["BenchmarkResult", "benchmark"]


@dataclass(frozen=True)
class BenchmarkResult:
    """Accuracies of one model, as fractions.

    Args:
        clean_accuracy: On the images as they are.
        robust_accuracy: Per attack: right on the image and after the attack.
        worst_case: Right on the image and after every attack.
    """

    clean_accuracy: float
    robust_accuracy: dict[str, float]
    worst_case: float


def benchmark(
    model: nn.Module,
    *,
    dataset: str | tuple[Tensor, Tensor],
    eps: str | float,
    data_dir: Path | str | None = None,
    attacks: str = "quick",
    n_examples: int | None = None,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | str | None = None,
    registry: Mapping[str, type[Attack]] | None = None,
) -> BenchmarkResult:
    """Measure one classifier's accuracy, clean and under attack.

    Args:
        model: Takes pixels in [0, 1] of shape (n, channels, height, width), normalises inside, returns logits; in eval
            mode and deterministic.
        dataset: A name that ``load_images`` knows (its test split), or pixels in [0, 1] with int64 labels.
        eps: Linf radius in pixel units, 0 < eps <= 1: a number, or text such as "8/255".
        data_dir: Where the data set lies.
        attacks: A comma list such as "fgsm,pgd100", or a preset.
        n_examples: The first so many examples; all by default.
        batch_size: Examples per pass.
        seed: Source of the attacks' random draws.
        device: Where to compute; by default, where the model is. The model is moved there.
        registry: Attack classes by family; by default those of all installed plugins.

    Returns:
        The accuracies.

    Raises:
        UnusableInput: If an argument, the data or the model cannot be worked with.
        AuditFailure: If an attack breaks its own bounds.
    """
    if batch_size < 1:
        raise UnusableInput(f"expected batch_size >= 1, got {batch_size}")
    chosen = attack_columns(parse_attacks(attacks, registry or Plugins().attack_classes, parse_eps(eps), seed))
    if isinstance(dataset, str):
        images = load_images(dataset, data_dir, "test", n_examples)
    else:
        images = images_from_tensors(*dataset, n_examples)
    place = _device_of(model) if device is None else torch.device(device)
    records = evaluate_model(lambda: model.to(place), images, chosen, batch_size=batch_size, device=place)
    correct = {column: record.correct for column, record in records.items()}
    (worst_case,) = worst_cases(correct, chosen).values()
    return BenchmarkResult(
        clean_accuracy=float(correct[CLEAN].mean()),
        robust_accuracy={column: float(correct[column].mean()) for column in chosen},
        worst_case=float(worst_case.mean()),
    )


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
