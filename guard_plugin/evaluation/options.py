"""The options that a user gives to a benchmark, in one dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from guard_plugin.attacks import Attack, builtin_registry
from guard_plugin.attacks.registry import usual_attacks
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.proof import check_ledger
from guard_plugin.students.training import TrainingRecipe
from guard_plugin.versions import keyword_dataclass

__all__ = ["FEWEST_STUDENTS", "FOR_CHECKPOINTS", "FOR_STUDENTS", "BenchmarkOptions"]

# The options that only one of the two kinds of subject has.
FOR_STUDENTS = (
    "host_dataset",
    "seeds",
    "recipe",
    "recipe_values",
    "fkd",
    "teacher",
    "teacher_arch",
    "teacher_normalization",
    "learning_rate",
    "zca",
)
FOR_CHECKPOINTS = ("normalization",)

FEWEST_STUDENTS = 5
"""Of a benchmark that does not say how many."""


@keyword_dataclass
class BenchmarkOptions:
    """What a user chooses for a benchmark.

    Args:
        dataset: A name that ``load_images`` knows.
        arch: A name that ``build_network`` knows: the architecture of the networks that are measured.
        attacks: A comma list such as "fgsm,pgd100", or a preset; in any case.
        out: The folder for results.json, the records and the students. An earlier run in it is continued.
        eps: One radius or several, in pixel units, each a number or text such as "8/255"; by default, the preset's.
        data_dir: The folder of the data set.
        split: The part of the data set: "train", "val" or "test".
        n_examples: How many examples of the split are measured, counted from its first; all by default.
        num_classes: The number of classes, where the data set's files do not tell it (``load_images``).
        batch_size: Examples per attack pass, >= 1. It changes no result.
        device: The device that computes (``usable_device``).
        source: Checkpoint, architecture and normalization (None for the usual one) of the model on which transferred
            attacks are made.
        registry: Attack classes by family; guard-plugin's own by default.
        ledger: The ledger of the run that made what is measured, for results.json; or one for each of several runs.
        normalization: For checkpoints: what their training fed the networks (``parse_normalization``); by default, what
            is usual for the data set.
        seeds: For students: their number, >= 1; by default 5 or more, equally many for each distilled set.
        recipe: For students: how they are trained, as a name or a recipe; by default, as the host of the sets does it.
        recipe_values: For students: values in place of the recipe's own, by name, as text or as they are
            (``TrainingRecipe.with_values``), such as ``{"epochs": 30}``.
        learning_rate: For students: their learning rate, in place of the recipe's and of one that was learned along
            with the images.
        zca: For students: whether the host ran with ``--zca``; by default, what its files say.
        fkd: For recipes of the SRe2L family: a folder of soft labels that the host stored (``FkdLabels``); students
            then see the views that these labels describe, by default by recipe "sre2l", whose host stores them. Without
            this and ``teacher``, students learn the classes of the images. Of several distilled sets, a folder for
            each.
        teacher: For recipes of the SRe2L family: the checkpoint of a network that labels newly drawn views; of several
            distilled sets, one for all or one for each.
        teacher_arch: The architecture of ``teacher``; by default, that of the students.
        teacher_normalization: What its training fed the teacher (``parse_normalization``); by default, what students
            take, or where these take pixels, what is usual for the data set.
        host_dataset: For students: the host's name for the data set ("ImageNet"), where its files do not contain it and
            ``dataset`` is another name, such as that of a folder.

    Raises:
        UnusableInput: If ``seeds`` or ``batch_size`` is below 1, or a ledger is none, or of a run that is not complete.
    """

    dataset: str
    arch: str
    attacks: str
    out: Path | str
    eps: str | float | Sequence[str | float] | None = None
    data_dir: Path | str | None = None
    split: str = "test"
    n_examples: int | None = None
    num_classes: int | None = None
    batch_size: int = 128
    device: torch.device | str = "cpu"
    source: tuple[Path | str, str, str | None] | None = None
    registry: Mapping[str, type[Attack]] | None = None
    ledger: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    normalization: str | None = None
    seeds: int | None = None
    recipe: str | TrainingRecipe | None = None
    recipe_values: Mapping[str, Any] | None = None
    learning_rate: float | None = None
    zca: bool | None = None
    fkd: Path | str | Sequence[Path | str] | None = None
    teacher: Path | str | Sequence[Path | str] | None = None
    teacher_arch: str | None = None
    teacher_normalization: str | None = None
    host_dataset: str | None = None

    def __post_init__(self) -> None:
        families = builtin_registry() if self.registry is None else self.registry
        object.__setattr__(self, "attacks", usual_attacks(self.attacks, families))
        for name, value in vars(self).items():
            if isinstance(value, str) and not value.strip():
                raise UnusableInput(f"expected a value for {name}, got an empty text: leave it out")
        for name in ("seeds", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UnusableInput(f"expected {name} >= 1, got {value}")
        for ledger in self.ledgers:
            check_ledger(ledger)

    @property
    def folder(self) -> Path:
        """``out`` as a path."""
        return Path(self.out)

    @property
    def ledgers(self) -> list[Mapping[str, Any]]:
        """Every ledger that was given."""
        if self.ledger is None:
            return []
        return [self.ledger] if isinstance(self.ledger, Mapping) else list(self.ledger)

    def students(self, sets: int) -> int:
        """Return how many students there are of so many distilled sets."""
        return self.seeds or -(-FEWEST_STUDENTS // sets) * sets

    def refuse(self, names: Sequence[str], *, belong_to: str) -> None:
        """Raise UnusableInput if one of ``names``, options of the other kind of subject, was given."""
        misplaced = [name for name in names if getattr(self, name) is not None]
        if misplaced:
            raise UnusableInput(f"{', '.join(misplaced)} belongs to {belong_to}: leave it out")
