"""Whether what a results.json says of distilled images can be true: its names, hashes and figures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guard_plugin.comparison.results_file import Column, Reported, explain_misfits
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import means_of_sets
from guard_plugin.leaderboard.intervals import narrowest_interval
from guard_plugin.quantities import parse_number

__all__ = ["attacks_in", "check_results"]

_ROUNDING = 1e-9
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 200
_MOST = 10**9  # examples, or images per class
_MOST_TOLD = 3
_FIX = "take the file as guard benchmark wrote it, or benchmark the images again"


def check_results(file: Path, reported: Reported) -> None:
    """Refuse a results.json whose figures contradict each other, or that is not of distilled images.

    This holds for folders too: records give the accuracies of students, but not the names and hashes.

    Raises:
        UnusableInput: With the first few of the problems.
    """
    with explain_misfits(file):
        subject = reported.results["subject"]
        if subject["kind"] != "distilled":
            raise UnusableInput(
                f"{file} is a benchmark of a {_short(subject['kind'])}, and distilled images are ranked: benchmark "
                f"these, with --distilled"
            )
        # What a later check computes with has passed the earlier ones.
        found = next(filter(None, (list(check(reported)) for check in (_on_form, _on_figures, _on_order))), [])
    if found:
        more = "; and more" if len(found) > _MOST_TOLD else ""
        raise UnusableInput(f"{file}: {'; '.join(found[:_MOST_TOLD])}{more}: {_FIX}")


def _on_form(reported: Reported) -> Iterator[str]:
    yield from _on_names(reported)
    yield from _on_hashes(reported.results["subject"], reported.protocol)
    yield from _on_counts(reported)


def _on_figures(reported: Reported) -> Iterator[str]:
    for attack in reported.protocol["attacks"]:
        yield from _on_ball(attack)
    yield from _on_members(reported)
    for column in reported.columns:
        yield from _on_accuracy(reported, column.name)


def _on_names(reported: Reported) -> Iterator[str]:
    protocol, subject = reported.protocol, reported.results["subject"]
    names = {"protocol.dataset": protocol["dataset"], "protocol.arch": protocol["arch"]}
    names |= {"subject.adapter": subject["adapter"], "protocol.split": protocol.get("split", "test")}
    for i, attack in enumerate(protocol["attacks"]):
        names |= {f"protocol.attacks[{i}].{key}": attack[key] for key in ("name", "norm", "eps")}
    names |= {f"column {i} of accuracy": column.name for i, column in enumerate(reported.columns)}
    for what, name in names.items():
        if not (type(name) is str and 0 < len(name) <= _LONGEST_NAME and name.isprintable()):
            yield f"expected {what} as 1 to {_LONGEST_NAME} printable characters, got {_short(name)}"


def _on_hashes(subject: Mapping[str, Any], protocol: Mapping[str, Any]) -> Iterator[str]:
    hashes = {"subject.sha256": subject["sha256"], "protocol.data_sha256": protocol["data_sha256"]}
    if "source" in protocol:
        hashes["protocol.source.sha256"] = protocol["source"]["sha256"]
    for what, value in hashes.items():
        if not (type(value) is str and _SHA256.fullmatch(value)):
            yield f"expected {what} as 64 hexadecimal digits, got {_short(value)}"


def _on_counts(reported: Reported) -> Iterator[str]:
    ipc, protocol = reported.results["subject"].get("ipc"), reported.protocol
    if not (_is_number(ipc) and 0 < ipc <= _MOST):
        yield f"expected subject.ipc, the images per class, as a number above 0, got {_short(ipc)}"
    for key in ("seeds", "n_examples", *(("num_classes",) if "num_classes" in protocol else ())):
        if not (type(protocol[key]) is int and 0 < protocol[key] <= _MOST):
            yield f"expected protocol.{key} as a whole number above 0, got {_short(protocol[key])}"
    if not all(0 <= one < len(reported.sets) for one in reported.sets):
        yield f"expected set_of_student from 0 to {len(reported.sets) - 1}, got {_short(list(reported.sets))}"


def _on_ball(attack: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the radius as a number is not that of its text."""
    eps, told = attack["eps_value"], parse_number(attack["eps"])
    if not (_is_number(eps) and eps > 0 and math.isclose(eps, told)):
        yield f"expected eps_value of {attack['name']} as eps {attack['eps']} above 0, got {_short(eps)}"


def _on_members(reported: Reported) -> Iterator[str]:
    """Yield where a worst case leaves out an attack that belongs to it."""
    coupled = {
        column.name
        for column, attack in zip(reported.columns[1:], reported.protocol["attacks"])
        if attack.get("coupled") is not None
    }
    for column in reported.columns:
        if column.kind == "worst":
            in_ball = [one.name for one in attacks_in(reported.columns, column)]
            expected = [name for name in in_ball if name not in coupled] or in_ball
            if list(column.members) != expected:
                yield f"expected {column.name} of {', '.join(expected)}, got {_short(list(column.members))}"


def attacks_in(columns: Sequence[Column], worst: Column) -> list[Column]:
    """Return the columns of the attacks in the ball of a worst case."""
    ball = worst.norm, worst.eps, worst.eps_value
    return [one for one in columns if one.kind == "attack" and (one.norm, one.eps, one.eps_value) == ball]


def _on_accuracy(reported: Reported, column: str) -> Iterator[str]:
    entry = reported.results["accuracy"][column]
    per_seed, mean, (low, high) = entry["per_seed"], entry["mean"], entry["ci95"]
    values = [*per_seed, *entry.get("per_set", ()), mean, low, high]
    if len(per_seed) != len(reported.sets) or not all(_is_number(one) and 0 <= one <= 1 for one in values):
        yield f"expected accuracies of {column} from 0 to 1, one for each of {len(reported.sets)} students"
        return
    right = np.multiply(per_seed, reported.protocol["n_examples"])
    if np.abs(right - right.round()).max() > 1e-6:
        yield f"accuracies of {column} are not shares of {reported.protocol['n_examples']} examples"
    # Version 0.1, which did not write "per_set", took the mean over all students.
    per_set = means_of_sets(per_seed, reported.sets)
    told = entry.get("per_set", per_set)
    if len(told) != len(per_set) or np.abs(np.subtract(told, per_set)).max() > _ROUNDING:
        yield f"per_set of {column} are not the means of its students"
    if abs(np.mean(per_set if "per_set" in entry else per_seed) - mean) > _ROUNDING:
        yield f"the accuracies of students in {column} do not give the mean {mean:.6f}"
    several = "per_set" in entry and len(per_set) > 1
    yield from _on_interval(column, entry, per_set if several else per_seed, reported.protocol["n_examples"])


def _on_interval(column: str, entry: Mapping[str, Any], accuracies: Sequence[float], examples: int) -> Iterator[str]:
    """Yield where an interval does not hold what any interval of such accuracies does."""
    mean, (low, high) = entry["mean"], entry["ci95"]
    least, most = narrowest_interval(accuracies, examples, is_wilsons="per_set" in entry)
    if _ROUNDING < mean < 1 - _ROUNDING and not low < mean < high:
        yield f"expected ci95 of {column} around {mean:.6f}, got {low:.6f} to {high:.6f}"
    elif low > least + _ROUNDING or high < most - _ROUNDING:
        yield (
            f"expected ci95 of {column} to hold {least:.6f} to {most:.6f}, which its accuracies over {examples} "
            f"examples imply, got {low:.6f} to {high:.6f}"
        )


def _on_order(reported: Reported) -> Iterator[str]:
    """Yield where a student is right on more examples under an attack than without, or in a worst case than in a part.

    Only what is right without an attack is attacked.
    """
    accuracy = reported.results["accuracy"]
    for column in reported.columns:
        for above in ("clean", *column.members):
            if np.max(np.subtract(accuracy[column.name]["per_seed"], accuracy[above]["per_seed"])) > _ROUNDING:
                yield f"the accuracy of {column.name} is above that of {above} for a student"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _short(value: Any) -> str:
    return f"{value!r:.80}"
