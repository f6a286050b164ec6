"""From per-example outcomes to results.json."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from guard_plugin.attacks import Attack
from guard_plugin.datasets import ImageSet
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.engine import CLEAN
from guard_plugin.evaluation.records import Outcomes, Record
from guard_plugin.evaluation.statistics import confidence_interval
from guard_plugin.evaluation.warnings import find_warnings

__all__ = [
    "SCHEMA",
    "WORST_CASE",
    "FinishedBenchmark",
    "accuracy_entry",
    "attack_columns",
    "data_protocol",
    "finish",
    "means_of_sets",
    "sets_of",
    "shown_setting",
    "unit_of",
    "versions",
    "worst_case_members",
    "worst_cases",
]

SCHEMA = 1
WORST_CASE = "worst_case"


@dataclass(frozen=True)
class FinishedBenchmark:
    """A benchmark that has run to its end.

    Args:
        results: What results.json holds.
        correct: Column -> shape (students, examples), bool; "clean" first, then attacks, then worst cases.
    """

    results: dict[str, Any]
    correct: dict[str, Outcomes]


def attack_columns(attacks: Sequence[Attack]) -> dict[str, Attack]:
    """Name the columns: by the attack alone at one eps ("pgd100"), else with it ("pgd100@4/255").

    Raises:
        UnusableInput: If two columns would have the same name, one is called as the others' summary is, or one radius
            is written in two ways, which would name two worst cases.
    """
    several = _several_eps(attacks)
    columns = {_column(attack.name, attack, several): attack for attack in attacks}
    different = {(attack.name, attack.eps.value) for attack in attacks}
    if len(different) < len(attacks) or {CLEAN, WORST_CASE} & {attack.name for attack in attacks}:
        raise UnusableInput(
            f"expected attacks and eps that are all different, and none named {CLEAN} or {WORST_CASE}; "
            f"got {', '.join(f'{attack.name} at {attack.eps.text}' for attack in attacks)}"
        )
    texts = {attack.eps.value: attack.eps.text for attack in attacks}
    for attack in attacks:
        if attack.eps.text != texts[attack.eps.value]:
            raise UnusableInput(
                f"expected each eps to be written alike, got {attack.eps.text} and {texts[attack.eps.value]} for one"
            )
    return columns


def _several_eps(attacks: Iterable[Attack]) -> bool:
    return len({attack.eps.text for attack in attacks}) > 1


def _column(name: str, attack: Attack, several: bool) -> str:
    return f"{name}@{attack.eps.text}" if several else name


def worst_cases(correct: Mapping[str, Outcomes], attacks: Mapping[str, Attack]) -> dict[str, Outcomes]:
    """Find the examples, of outcomes of shape (..., examples) by column, that survive every attack in one ball."""
    return {
        summary: np.logical_and.reduce([correct[column] for column in (CLEAN, *members)])
        for summary, members in worst_case_members(attacks).items()
    }


def worst_case_members(attacks: Mapping[str, Attack]) -> dict[str, list[str]]:
    """Find the columns that each worst case unites: those of the attacks in one ball.

    Attacks that are reproduced with their faults (``Attack.coupled``) may leave their ball. They are left out where
    there are others. The keys are "worst_case", with the norm where that is not the first attack's, and with "@" and
    the eps where there are several of these.
    """
    several, first = _several_eps(attacks.values()), next((attack.norm for attack in attacks.values()), None)
    members: dict[str, list[str]] = {}
    for column, attack in attacks.items():
        summary = _column(WORST_CASE if attack.norm == first else f"{WORST_CASE}-{attack.norm}", attack, several)
        members.setdefault(summary, []).append(column)
    held = {column for column, attack in attacks.items() if attack.coupled is None}
    return {summary: [column for column in of if column in held] or of for summary, of in members.items()}


def shown_setting(value: Any) -> str:
    """Write a setting; of attacks, only their names and radii."""
    if isinstance(value, list) and all(isinstance(attack, dict) and "name" in attack for attack in value):
        return ", ".join(f"{attack['name']} at {attack.get('eps')}" for attack in value)
    return str(value)


def sets_of(subject: Mapping[str, Any], networks: int) -> list[int]:
    """Return the number of the distilled set that each network was trained on, from "subject" of results.json.

    Networks that were given stand for themselves. Results of version 0.1 say how many sets there are, from which
    networks took theirs in turn; where they do not say that either, all networks count as of one set.

    Raises:
        ValueError: If the numbers are not one for each network.
    """
    if subject.get("kind") == "checkpoint":
        return list(range(networks))
    told = subject.get("set_of_student")
    if told is None:
        return [k % (subject.get("experiments") or 1) for k in range(networks)]
    if len(told) != networks or not all(type(one) is int for one in told):
        raise ValueError(f"expected set_of_student as a whole number for each of {networks} students, got {told}")
    return list(told)


def unit_of(subject: Mapping[str, Any]) -> str:
    """Return what is independent of each other: "sets", or "networks" that were given."""
    return "networks" if subject.get("kind") == "checkpoint" else "sets"


def accuracy_entry(correct: Outcomes, sets: Sequence[int], unit: str = "sets") -> dict[str, Any]:
    """Summarise outcomes, shape (students, examples), of students of these sets, as fractions.

    The mean is over sets of the means over their students; "std" is over students, with ddof=1. ``Estimate`` explains
    "shares" and "limited_by".
    """
    per_seed, estimate = correct.mean(axis=1), confidence_interval(correct, sets).of(unit)
    return {
        "mean": estimate.value,
        "std": float(per_seed.std(ddof=1)) if len(per_seed) > 1 else 0.0,
        "per_seed": [float(accuracy) for accuracy in per_seed],
        "per_set": means_of_sets(per_seed, sets),
        "ci95": [estimate.low, estimate.high],
        "limited_by": estimate.limited_by,
        "shares": estimate.shares,
    }


def means_of_sets(per_seed: Sequence[float] | NDArray[np.float64], sets: Sequence[int]) -> list[float]:
    """Average the accuracies of each set's students, in the order of the sets' numbers."""
    return [float(np.mean(np.compress(np.equal(sets, one), per_seed))) for one in sorted(set(sets))]


def data_protocol(images: ImageSet, split: str) -> dict[str, Any]:
    """Describe the images of a measurement, for JSON."""
    return {
        "dataset": images.name,
        "split": split,
        "n_examples": len(images.labels),
        "data_sha256": images.sha256,
        "num_classes": images.num_classes,
    }


def finish(
    records: Sequence[Mapping[str, Record]],
    attacks: Mapping[str, Attack],
    num_classes: int,
    *,
    subject: Mapping[str, Any],
    protocol: Mapping[str, Any],
    run: Mapping[str, Any],
    ledgers: Sequence[Mapping[str, Any]],
    versions: Mapping[str, Any],
    warnings: Iterable[tuple[str, str]],
) -> FinishedBenchmark:
    """Summarise the records of each network, by column; what follows ``num_classes`` are entries of results.json.

    Of these, ``warnings`` are columns and reasons for "flags", before those that the records give.
    """
    sample = sets_of(subject, len(records)), unit_of(subject)
    correct = {column: np.stack([of[column].correct for of in records]) for column in (CLEAN, *attacks)}
    cost = {
        part: {column: sum(getattr(of[column].cost, part) for of in records) for column in correct}
        for part in ("seconds", "forwards", "backwards")
    }
    correct |= worst_cases(correct, attacks)
    results = {
        "schema": SCHEMA,
        "subject": dict(subject),
        "protocol": dict(protocol),
        "accuracy": {column: accuracy_entry(outcomes, *sample) for column, outcomes in correct.items()},
        "target_reached": {
            column: accuracy_entry(np.stack([of[column].reached for of in records]), *sample)
            for column, attack in attacks.items()
            if attack.targeted
        },
        "farthest": {column: max(of[column].farthest for of in records) for column in attacks},
        "worst_cases": worst_case_members(attacks),
        "flags": find_warnings(records, attacks, correct, num_classes, warnings),
        "run": dict(run),
        "cost": cost,
        "ledger": dict(ledgers[0]) if ledgers else None,
        **({"ledgers": [dict(ledger) for ledger in ledgers]} if len(ledgers) > 1 else {}),
        "versions": dict(versions),
    }
    return FinishedBenchmark(results, correct)


def versions(device: torch.device) -> dict[str, Any]:
    """Return the versions of what computes the results; None for a package that is not installed."""
    return {
        "guard_plugin": _version("guard-plugin"),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "pyautoattack": _version("pyautoattack"),
        "torchattacks": _version("torchattacks"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
