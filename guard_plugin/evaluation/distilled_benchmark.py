"""The benchmark of distilled sets: by the students that are trained on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard_plugin.attacks import Attack, check_classes
from guard_plugin.datasets import ImageSet, load_images, load_training_images, tensors_sha256
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import Group
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.planning import attack_protocol, data_protocol, planned_attacks
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.running import Plan, check_counts, run_plan, usable_device
from guard_plugin.evaluation.source import Source
from guard_plugin.networks.architectures import build_network
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import InputSpace
from guard_plugin.students.recipes import recipe_named, train_student
from guard_plugin.students.soft_labels import LabelSource, label_source
from guard_plugin.students.training import TrainingRecipe

__all__ = ["benchmark_distilled"]


def benchmark_distilled(
    sets: Sequence[DistilledSet],
    *,
    dataset: str,
    arch: str,
    attacks: str,
    eps: Sequence[str | float] | None,
    seeds: int,
    out: Path,
    subject: Mapping[str, Any],
    data_dir: Path | str | None = None,
    n_examples: int | None = None,
    batch_size: int = 128,
    recipe: str | TrainingRecipe | None = None,
    learning_rate: float | None = None,
    zca: bool | None = None,
    fkd: Path | None = None,
    teacher: Path | None = None,
    teacher_arch: str | None = None,
    host_dataset: str | None = None,
    source: tuple[Path, str, str | None] | None = None,
    registry: Mapping[str, type[Attack]] | None = None,
    ledger: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    split: str = "test",
) -> FinishedBenchmark:
    """Train students on distilled sets and measure them; go on where an earlier run of the same protocol stopped.

    Student k is trained with seed k on ``sets[k % len(sets)]``. Writes ``out/results.json``, the students as state
    dicts in ``out/students/`` and a flag per example, student and column in ``out/records/``.

    Args:
        sets: What a host distilled, at least one.
        dataset: A name that ``load_images`` knows.
        arch: A name that ``build_network`` knows.
        attacks: A comma list such as "fgsm,pgd100", or a preset.
        eps: One radius or several, in pixel units; by default, the preset's.
        seeds: Number of students, >= 1.
        out: The folder.
        subject: What is measured, for results.json.
        data_dir: Where the data set lies.
        n_examples: The first so many examples of the split; all by default.
        batch_size: Examples per attack pass.
        recipe: How students are trained: a name or a recipe; by default, as the host of the sets does it.
        learning_rate: The students', in place of the recipe's and of one that was learned along with the images.
        zca: Whether the host ran with ``--zca``; by default, what its files tell.
        fkd: For recipe "sre2l": a folder of soft labels that the host stored (``FkdLabels``); students see the views
            that they are about. Without this and ``teacher``, students learn the images' classes.
        teacher: For recipe "sre2l": the checkpoint of a network that labels newly drawn views.
        teacher_arch: Its architecture; by default, the students'.
        host_dataset: What the host calls the data set ("ImageNet"), where its files do not tell and ``dataset`` is
            another name, such as that of a folder.
        source: Checkpoint, architecture and normalisation (None for the usual one) of the model that transferred
            attacks are made on.
        registry: Attack classes by family; guard-plugin's own by default.
        ledger: Of the run that distilled the sets, for results.json.
        device: Where to compute.
        split: "train", "val" or "test".

    Returns:
        What results.json holds, with the outcomes per student and example.

    Raises:
        UnusableInput: If an argument, the data or the folder cannot be worked with; before any training.
        AuditFailure: If an attack breaks its own bounds.
    """
    check_counts(seeds=seeds, batch_size=batch_size)
    if not sets:
        raise UnusableInput("expected at least one distilled set, got none")
    sets = [one.for_dataset(host_dataset or dataset) for one in sets]
    training = _recipe(recipe, learning_rate, sets)
    columns = planned_attacks(attacks, eps, registry)
    place = usable_device(device)
    images = load_images(dataset, data_dir, split, n_examples)
    check_classes(columns, images.num_classes)
    _check_fit(sets, images)
    network = _network(arch, images)
    with torch.device("meta"):
        network()  # An unknown or unfit architecture is refused here.
    space, normalization = _input_space(sets, zca, dataset, data_dir)
    labels = label_source(fkd, teacher, teacher_arch or arch, _network(teacher_arch or arch, images))
    training = _checked_training(training, labels, sets)
    transfer = Source.read(*source, images, place) if source else None
    protocol = {
        **data_protocol(images, split),
        "arch": arch,
        "normalization": normalization,
        "recipe": {**training.describe(), **_learning_rate(training, learning_rate, sets)},
        "seeds": seeds,
        **attack_protocol(attacks, columns, transfer),
    }
    # Like the images, soft labels are what is compared, not how: they belong to the subject.
    soft = {"soft_labels": labels.identity()} if labels else {}
    soft_sha256 = {"labels_sha256": labels.identity()["sha256"]} if labels else {}
    plan = Plan(
        images=images,
        attacks=columns,
        protocol=protocol,
        identity={"distilled_sha256": _sha256(sets), **soft_sha256},
        subject={**subject, **({"dataset": host_dataset} if host_dataset else {}), **soft},
        out=Path(out),
        batch_size=batch_size,
        device=place,
        source=transfer,
        ledger=ledger,
    )
    return run_plan(plan, _Students(sets, seeds, space, network, training, len(images.labels), place))


@dataclass(frozen=True)
class _Students:
    sets: Sequence[DistilledSet]
    count: int
    space: Callable[[], InputSpace]
    network: Callable[[], nn.Module]
    recipe: TrainingRecipe
    examples: int
    device: torch.device

    @property
    def room(self) -> int:
        with torch.device("meta"):
            state = self.network().state_dict()
        return sum(tensor.numel() * tensor.element_size() for tensor in state.values())

    def prepare(self, folder: BenchmarkFolder, group: Group) -> None:
        """Train the students that are missing, each process its own share of them."""
        missing = group.first(lambda: [k for k in range(self.count) if not folder.has_student(k)])
        for k in missing[group.rank :: group.size]:
            distilled = self.sets[k % len(self.sets)]
            student = train_student(distilled, self.network, self.recipe, seed=k, device=self.device)
            folder.keep_student(k, student, self.examples)
        group.gather(None)  # until everyone is ready

    def pixel_model(self, folder: BenchmarkFolder, k: int) -> nn.Module:
        return PixelModel(folder.load_student(k, self.network), self.space()).eval().to(self.device)


def _recipe(
    recipe: str | TrainingRecipe | None, learning_rate: float | None, sets: Sequence[DistilledSet]
) -> TrainingRecipe:
    wanted = sets[0].recipe if recipe is None else recipe
    training = recipe_named(wanted) if isinstance(wanted, str) else wanted
    return training if learning_rate is None else training.with_learning_rate(learning_rate)


def _checked_training(
    training: TrainingRecipe, labels: LabelSource | None, sets: Sequence[DistilledSet]
) -> TrainingRecipe:
    training = training.with_labels(labels) if labels else training
    for one in sets:
        training.check(one)
    return training


def _learning_rate(training: TrainingRecipe, given: float | None, sets: Sequence[DistilledSet]) -> dict[str, Any]:
    """The learning rate that students start with and where it comes from; a list, per set, where sets differ."""
    rates = [training.for_set(one).learning_rate for one in sets]
    source = "recipe" if given is None else "given"
    sources = [
        "distilled set" if training.learning_rate_from_set and one.learning_rate is not None else source for one in sets
    ]
    return {"learning_rate": _one_or_all(rates), "learning_rate_source": _one_or_all(sources)}


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else values


def _input_space(
    sets: Sequence[DistilledSet], zca: bool | None, dataset: str, data_dir: Path | str | None
) -> tuple[Callable[[], InputSpace], dict[str, Any]]:
    """What gives the sets' input space, fitted at the first call where it needs that, and its description."""
    spaces = [one.normalization if zca is None else one.normalization.decided(zca) for one in sets]
    space = spaces[0]
    if any(other.describe() != space.describe() for other in spaces):
        raise UnusableInput("expected distilled sets of one normalization, got several: benchmark them one by one")
    if not space.needs_fit:
        return lambda: space, space.describe()
    images = load_training_images(dataset, data_dir)
    fitted_on = {"images": "all for training", "n_examples": len(images.labels), "sha256": images.sha256}
    return cache(lambda: space.fitted(images.pixels)), {**space.describe(), "fitted_on": fitted_on}


def _network(arch: str, images: ImageSet) -> Callable[[], nn.Module]:
    channels, height, width = images.pixels.shape[1:]
    return partial(build_network, arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))


def _check_fit(sets: Sequence[DistilledSet], images: ImageSet) -> None:
    wanted = (*images.pixels.shape[1:], images.num_classes)
    for distilled in sets:
        found = (*distilled.images.shape[1:], distilled.num_classes)
        if found != wanted:
            raise UnusableInput(
                f"the distilled set does not fit {images.name}: expected (channels, height, width, classes) = "
                f"{wanted}, got {found}"
            )


def _sha256(sets: Sequence[DistilledSet]) -> list[str]:
    # The protocol tells the rest that the students depend on: normalization and learning rate.
    return [tensors_sha256(one.images, one.labels) for one in sets]
