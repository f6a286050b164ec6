"""Reading results.json, and checking that it is what ``guard benchmark`` writes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import SCHEMA, sets_of, unit_of
from guard_plugin.files import read_json_object
from guard_plugin.versions import strict_zip

__all__ = ["AGAIN", "Column", "Reported", "columns_of", "explain_misfits", "read_results"]

AGAIN = "benchmark again into a new folder"

_DEEPEST = 32
_COMPLETE = "if a benchmark was cut off, run the same guard benchmark command again, which completes it"

# The types of what a comparison shows or computes with; of a key that may be missing, None too.
_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "subject.kind": (str,),
    "subject.experiments": (int, _NONE),
    "protocol.dataset": (str,),
    "protocol.arch": (str,),
    "protocol.seeds": (int,),
    "protocol.n_examples": (int,),
    "protocol.num_classes": (int, _NONE),
    "protocol.recipe": (dict, _NONE),
    "versions": (dict,),
}
_TYPES_OF_DISTILLED: dict[str, tuple[type, ...]] = {
    "subject.path": (str,),
    "subject.sha256": (str,),
    "subject.paths": (list, _NONE),
    "subject.adapter": (str,),
    "subject.dataset": (str, _NONE),
}


@dataclass(frozen=True)
class Column:
    """One column of results.json; clean accuracy has no ball."""

    name: str
    kind: Literal["clean", "attack", "worst"]  # "worst": the examples that survive every attack in one ball
    attack: str  # its name without eps; "clean" or "worst case" for the other kinds
    norm: str | None = None
    eps: str | None = None  # as the user wrote it
    eps_value: float | None = None
    members: tuple[str, ...] = ()  # of a worst case: the columns that it unites

    @property
    def norm_label(self) -> str:
        """The norm as a reader writes it: "Linf"; empty for clean accuracy."""
        return (self.norm or "").capitalize()

    @property
    def ball(self) -> str:
        """The ball in words: "eps 8/255 (Linf)"; empty for clean accuracy."""
        return "" if self.eps is None else f"eps {self.eps} ({self.norm_label})"


@dataclass(frozen=True)
class Reported:
    """What a results.json says of a finished benchmark.

    Args:
        results: What the file holds.
        columns: The columns, in the order of results.json.
        sets: The number of the distilled set of each student; a network that was given stands for itself.
    """

    results: dict[str, Any]
    columns: tuple[Column, ...]
    sets: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many independent units there are: distilled sets, or networks that were given."""
        return len(set(self.sets))

    @property
    def unit(self) -> str:
        """What is independent of each other: "sets" or "networks"."""
        return unit_of(self.results["subject"])

    @property
    def is_told(self) -> bool:
        """Whether the results say which student is of which distilled set; if not, all count as of one."""
        subject = self.results["subject"]
        return self.unit == "networks" or any(subject.get(key) for key in ("set_of_student", "experiments"))

    @property
    def ledgers(self) -> list[Mapping[str, Any]]:
        """The ledgers of the distilling runs, as far as they were given."""
        given = self.results.get("ledgers")
        given = given if isinstance(given, list) else [self.results.get("ledger")]
        return [ledger for ledger in given if isinstance(ledger, Mapping)]

    @property
    def protocol(self) -> dict[str, Any]:
        """How the benchmark was measured."""
        protocol: dict[str, Any] = self.results["protocol"]
        return protocol

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Column and reason of each figure that the benchmark itself warns of."""
        return [(str(flag["column"]), str(flag["reason"])) for flag in self.results.get("flags") or []]


def read_results(file: Path) -> Reported:
    """Read a results.json without the records that lie beside it.

    Raises:
        UnusableInput: If the file is of another version, or not what ``guard benchmark`` writes.
    """
    try:
        results = read_json_object(file)
    except UnusableInput as error:
        raise UnusableInput(f"{error}: {_COMPLETE}, or {AGAIN}") from error
    _check_kind(file, results)
    if results.get("schema") != SCHEMA:
        raise UnusableInput(
            f"expected schema {SCHEMA} in {file}, got {results.get('schema')!r}: read it with the guard-plugin that "
            f"wrote it, or {AGAIN}"
        )
    with explain_misfits(file):
        _check_depth(results)
        _check_students(results)
        columns = tuple(columns_of(results))
        reported = Reported(results, columns, tuple(sets_of(results["subject"], results["protocol"]["seeds"])))
        _check_types(reported)
    return reported


def _check_kind(file: Path, results: Mapping[str, Any]) -> None:
    """Refuse what has none of the main entries of a results.json; say what it is instead, where that can be told."""
    if not {"subject", "protocol", "accuracy"}.isdisjoint(results):
        return
    kinds = {"loss_calls": "a ledger of guard run", "ledger": "a marker of guard run", "software": "a fingerprint.json"}
    found = next((kind for key, kind in kinds.items() if key in results), "no such file")
    raise UnusableInput(f"expected in {file} a results.json of guard benchmark, found {found}: give the results.json")


@contextmanager
def explain_misfits(file: Path) -> Iterator[None]:
    """Raise UnusableInput in place of a KeyError, TypeError or the like: the results.json is not ours."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnusableInput(
            f"{file} is not what guard benchmark writes ({type(error).__name__}: {error}): {AGAIN}"
        ) from error


def _check_depth(results: Mapping[str, Any]) -> None:
    """Fail with ValueError where values are nested so deeply that a function which follows them may not return."""
    level: list[Any] = [results]
    for _ in range(_DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [value for values in inner for value in values]
    if level:
        raise ValueError(f"values are nested more than {_DEEPEST} deep")


def _check_students(results: Mapping[str, Any]) -> None:
    """Fail with ValueError where the number of students, of which lists are made, is not that of their accuracies."""
    told, seeds = len(results["accuracy"]["clean"]["per_seed"]), results["protocol"]["seeds"]
    if told != seeds:
        raise ValueError(f"clean accuracies are of {told} students, but protocol.seeds is {seeds}")


def _check_types(reported: Reported) -> None:
    """Fail with KeyError, TypeError or the like where something is missing, or of another type, that is shown."""
    results, _ = reported.results, reported.flags
    _ = [results["cost"]["seconds"][column.name] for column in reported.columns if column.kind != "worst"]
    for part, by_column in results["cost"].items():
        for name, price in by_column.items():
            if not 0 <= price <= sys.float_info.max:  # A TypeError where it is no number.
                raise ValueError(f"cost.{part}.{name} is out of range")
    types = _TYPES | _TYPES_OF_DISTILLED if results["subject"]["kind"] == "distilled" else _TYPES
    for path, expected in types.items():
        value: Any = results
        for key in path.split("."):
            value = value.get(key)
        if not isinstance(value, expected) or (isinstance(value, list) and not all(type(one) is str for one in value)):
            raise TypeError(f"{path} is {type(value).__name__}")


def columns_of(results: Mapping[str, Any]) -> list[Column]:
    """Match the columns of results.json with the attacks of its protocol, which stand in the same order.

    Raises:
        ValueError: If they do not fit, or there are no attacks.
    """
    names, attacks, members = list(results["accuracy"]), list(results["protocol"]["attacks"]), results["worst_cases"]
    if not attacks:
        raise ValueError("expected attacks in protocol.attacks, got none")
    clean, attacked, worst = names[:1], names[1 : 1 + len(attacks)], names[1 + len(attacks) :]
    # Each ball once, in the order in which the attacks name them.
    balls = list(dict.fromkeys((attack["norm"], attack["eps"], attack["eps_value"]) for attack in attacks))
    fits = clean == ["clean"] and len(attacked) == len(attacks) and worst == list(members) and len(worst) == len(balls)
    if not fits or not all(name.startswith(attack["name"]) for name, attack in strict_zip(attacked, attacks)):
        raise ValueError(
            f"the columns {', '.join(names)} are not those of the attacks "
            f"{', '.join(str(attack['name']) for attack in attacks)}"
        )
    columns = [Column("clean", "clean", "clean")]
    for name, attack in strict_zip(attacked, attacks):
        columns.append(Column(name, "attack", attack["name"], attack["norm"], attack["eps"], attack["eps_value"]))
    for name, ball in strict_zip(worst, balls):
        columns.append(Column(name, "worst", "worst case", *ball, members=tuple(members[name])))
    return columns
