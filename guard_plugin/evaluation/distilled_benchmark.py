"""The benchmark of distilled sets: by the students that are trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.datasets import ImageSet, load_training_images, tensors_sha256
from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.markers import marker_of
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import Group
from guard_plugin.evaluation.engine import CLEAN
from guard_plugin.evaluation.fit import check_fit
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.label_sources import label_sources, paths_of
from guard_plugin.evaluation.options import FOR_CHECKPOINTS, BenchmarkOptions
from guard_plugin.evaluation.proof import made_under
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.run import BenchmarkRun, Subject, untrained_network
from guard_plugin.evaluation.warnings import without_negatives
from guard_plugin.networks.pixel_model import PixelModel, device_of
from guard_plugin.spaces import InputSpace
from guard_plugin.students.recipes import recipe_named, train_student
from guard_plugin.students.soft_labels import LabelSource
from guard_plugin.students.training import TrainingRecipe, check_last_batch
from guard_plugin.versions import strict_zip

__all__ = ["benchmark_distilled"]


def benchmark_distilled(
    sets: Sequence[DistilledSet], *, subject: Mapping[str, Any], **options: Any
) -> FinishedBenchmark:
    """Train students on distilled sets and measure them; continue where an earlier run of the same protocol stopped.

    Student k is trained with seed k on ``sets[k % len(sets)]``, as "set_of_student" in results.json says. Writes
    ``out/results.json``, the students as state dicts in ``out/students/``, and an outcome per example, student and
    column in ``out/records/``.

    Args:
        sets: What a host distilled by one method, at least one set; several differ by the seed of the distillation.
        subject: The description of the sets for results.json.
        options: The fields of :class:`guard_plugin.evaluation.BenchmarkOptions`, by name; ``dataset``, ``arch``,
            ``attacks`` and ``out`` are required.

    Returns:
        What results.json holds, with the outcomes per student and example.

    Raises:
        UnusableInput: If an option, the data or the folder cannot be used; before any training.
        AuditFailure: If an attack breaks its own bounds.
    """
    chosen = BenchmarkOptions(**options)
    chosen.refuse(FOR_CHECKPOINTS, belong_to="checkpoints")
    _check_sets(sets)
    if chosen.host_dataset and not any(one.input_spaces for one in sets):
        raise UnusableInput(
            f"expected no --host-dataset, got {chosen.host_dataset!r}: these distilled images say how they are "
            f"normalised, so that it would change nothing; leave it out"
        )
    sets = [one.for_dataset(chosen.host_dataset or chosen.dataset) for one in sets]
    run = BenchmarkRun(chosen)
    return run.measure(_students(sets, subject, chosen, run.images))


@dataclass(frozen=True)
class _Students(Subject):
    """Students, each trained once and kept in the folder."""

    sets: Sequence[DistilledSet]
    network: Callable[[], nn.Module]
    recipes: Sequence[TrainingRecipe]  # one for each set; they differ by the source of the labels
    space: Callable[[], InputSpace]
    by_default: bool  # whether the sets chose the recipe

    def prepare(self, folder: BenchmarkFolder, group: Group, device: torch.device) -> None:
        """Train the students that are missing, each process its own share of them."""
        missing = group.first(lambda: [k for k in range(self.protocol["seeds"]) if not folder.has_student(k)])
        for k in missing[group.rank :: group.size]:
            number = k % len(self.sets)
            distilled, recipe = self.sets[number], self.recipes[number]
            student = train_student(distilled, self.network, recipe, seed=k, device=device)
            if not _has_learned(student, distilled.images[: recipe.batch_size]):
                raise UnusableInput(
                    f"expected finite weights and logits of student {k}, which was trained with seed {k} on distilled "
                    f"set {number} of {len(self.sets)} (from 0), got NaN or infinity: its training diverged, at a "
                    f"learning rate of {recipe.for_set(distilled).learning_rate:g}. Give a lower --learning-rate, and "
                    f"another --out"
                )
            folder.keep_student(k, student)
        group.gather(None)  # until everyone is ready

    def warnings(self) -> Iterable[tuple[str, str]]:
        """Return what seems wrong with the distilled images, or with the recipe that was chosen for them, once each."""
        lacks = [(CLEAN, f"{of.recipe_lacks}, and recipe {of.recipe} does not") for of in self.sets if of.recipe_lacks]
        of_images = (one for of in self.sets for one in without_negatives(of.images, self.space))
        return dict.fromkeys([*(lacks if self.by_default else ()), *of_images])

    def pixel_model(self, folder: BenchmarkFolder, k: int) -> nn.Module:
        return PixelModel(folder.load_student(k, self.network), self.space()).eval()


@torch.no_grad()
def _has_learned(student: nn.Module, images: Tensor) -> bool:
    """Tell whether a student's weights are finite, and so are its logits for some of the images that it learned."""
    logits = student(images.to(device_of(student)))
    return all(bool(values.isfinite().all()) for values in (logits, *student.parameters()))


def _students(
    sets: Sequence[DistilledSet], description: Mapping[str, Any], options: BenchmarkOptions, images: ImageSet
) -> _Students:
    """Check that the sets fit the options and the images, and describe the students that will be trained."""
    check_fit(sets, images)
    hashes = [tensors_sha256(one.images, one.labels) for one in sets]
    if len(set(hashes)) < len(hashes):
        raise UnusableInput("expected distilled sets that are all different: a copy is no other seed of a distillation")
    network = untrained_network(options.arch, images)
    with torch.device("meta"):
        network()  # An unknown or unfit architecture is refused here.
    space, normalization = _input_space(sets, options)
    labels = label_sources(options, sets, images)
    recipes, changed = _recipes(sets, options, labels)
    for recipe, distilled in strict_zip(recipes, sets):
        check_last_batch(lambda: network().train(), distilled, recipe.batch_size, who=f"a student {options.arch}")
    # Like the images, soft labels are what is compared, not how: they belong to the subject.
    soft = [one.identity() for one in labels]
    seeds = options.students(len(sets))
    return _Students(
        description={
            **description,
            **({"dataset": options.host_dataset} if options.host_dataset else {}),
            **({"soft_labels": _one_or_all(soft)} if soft else {}),
            "made_under": made_under([*_marked(description, sets), *paths_of(options.fkd), *paths_of(options.teacher)]),
            "set_of_student": [k % len(sets) for k in range(seeds)],
        },
        protocol={
            "arch": options.arch,
            "normalization": normalization,
            "recipe": {
                **recipes[0].describe(),
                **_learning_rate(recipes[0], options.learning_rate, sets),
                **({"set": changed} if changed else {}),
            },
            "seeds": seeds,
        },
        # The protocol contains the rest that the students depend on: normalization and learning rate.
        identity={
            "distilled_sha256": hashes,
            **({"labels_sha256": _one_or_all([one["sha256"] for one in soft])} if soft else {}),
        },
        sets=sets,
        network=network,
        recipes=recipes,
        space=space,
        by_default=options.recipe is None,
    )


def _marked(description: Mapping[str, Any], sets: Sequence[DistilledSet]) -> list[Path]:
    """Return what was named to read the sets from; in place of a folder, those of its files that have own markers."""
    named = [Path(path) for path in description.get("paths", [description["path"]] if "path" in description else [])]
    files = [file for one in sets for file in one.files if marker_of(file).is_file()]
    return [one for path in named for one in ([file for file in files if path in file.parents] or [path])]


def _recipes(
    sets: Sequence[DistilledSet], options: BenchmarkOptions, labels: Sequence[LabelSource]
) -> tuple[list[TrainingRecipe], dict[str, Any]]:
    """Return the recipe of each set, checked; and the values that the user set otherwise than the recipe has them."""
    recipe, given = _chosen_recipe(sets, options), dict(options.recipe_values or {})
    if options.learning_rate is not None:
        recipe = recipe.with_learning_rate(options.learning_rate)
    of_labels = [recipe.with_labels(one) for one in labels] or [recipe]
    own = of_labels[0].values()
    _check_effects(of_labels[0], given)
    of_labels = [one.with_values(given) for one in of_labels] if given else of_labels
    recipes = of_labels if len(of_labels) == len(sets) else of_labels * len(sets)
    if any(one.describe() != recipes[0].describe() for one in recipes):
        raise UnusableInput("expected soft labels of one kind for all distilled sets: benchmark these sets one by one")
    for one, distilled in strict_zip(recipes, sets):
        one.check(distilled)
    return recipes, {name: value for name, value in recipes[0].values().items() if value != own[name]}


def _check_effects(recipe: TrainingRecipe, given: Mapping[str, Any]) -> None:
    """Refuse a value that changes nothing beside the others that were given."""
    changed = recipe.with_values(given)
    for name, value in given.items():
        try:
            without = recipe.with_values({other: given[other] for other in given if other != name})
        except UnusableInput:  # the others cannot be had without it
            continue
        if changed.values()[name] != without.values()[name] and changed.describe() == without.describe():
            raise UnusableInput(
                f"expected values of recipe {recipe.name} that take effect, got {name}={value}, which changes nothing "
                f"here: leave it out, or give the --set, --teacher or --fkd that it belongs to"
            )


def _chosen_recipe(sets: Sequence[DistilledSet], options: BenchmarkOptions) -> TrainingRecipe:
    if isinstance(options.recipe, TrainingRecipe):
        return options.recipe
    hosts = sets[0].recipe
    if options.fkd and hosts.startswith("sre2l-"):
        hosts = "sre2l"  # the host's scripts for small images store no soft labels
    return recipe_named(options.recipe or hosts)


def _one_or_all(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _check_sets(sets: Sequence[DistilledSet]) -> None:
    """Refuse sets that are none, or not of one method."""
    if not sets:
        raise UnusableInput("expected at least one distilled set, got none")
    for what in ("dataset", "arch", "recipe", "images_per_class", "num_classes", "class_names"):
        found = list(dict.fromkeys(getattr(one, what) for one in sets))
        if len(found) > 1:
            raise UnusableInput(
                f"expected distilled sets of one method, which differ by their seed alone, got {what} "
                f"{', '.join(map(str, found))}: benchmark them one by one, and compare"
            )


def _learning_rate(recipe: TrainingRecipe, given: float | None, sets: Sequence[DistilledSet]) -> dict[str, Any]:
    """Describe the learning rate that students start with and its source; as lists, per set, where sets differ."""
    rates = [recipe.for_set(one).learning_rate for one in sets]
    source = "recipe" if given is None else "given"
    sources = [
        "distilled set" if recipe.learning_rate_from_set and one.learning_rate is not None else source for one in sets
    ]
    per_set: dict[str, list[Any]] = {"learning_rate": rates, "learning_rate_source": sources}
    return {name: values[0] if values.count(values[0]) == len(sets) else values for name, values in per_set.items()}


def _input_space(
    sets: Sequence[DistilledSet], options: BenchmarkOptions
) -> tuple[Callable[[], InputSpace], dict[str, Any]]:
    """Return a function that gives the sets' input space, fitted at its first call if need be, and its description."""
    spaces = [one.space(options.zca) for one in sets]
    space = spaces[0]
    if any(other.describe() != space.describe() for other in spaces):
        raise UnusableInput("expected distilled sets of one normalization, got several: benchmark them one by one")
    if not space.needs_fit:
        return lambda: space, space.describe()
    images = load_training_images(options.dataset, options.data_dir)
    fitted_on = {"images": "all for training", "n_examples": len(images.labels), "sha256": images.sha256}
    return cache(lambda: space.fitted(images.pixels)), {**space.describe(), "fitted_on": fitted_on}
