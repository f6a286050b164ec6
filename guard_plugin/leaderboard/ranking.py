"""Entries ranked by their worst case, per data set, images per class, threat model and protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

from guard_plugin.comparison.comparing import Difference, difference
from guard_plugin.comparison.protocols import differing_settings
from guard_plugin.comparison.results_file import Column
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import shown_setting
from guard_plugin.leaderboard.checking import attacks_in
from guard_plugin.leaderboard.entries import Entry

__all__ = ["AgainstFirst", "Ranking", "Row", "rank"]

Verdict = Literal["first", "lower", "not told apart", "no verdict"]


class AgainstFirst(NamedTuple):
    """How an entry stands to the first of its ranking.

    Args:
        verdict: "no verdict" where one of the two has one distilled set only.
        difference: Its worst case minus that of the first, paired by example, where both have records.
    """

    verdict: Verdict
    difference: Difference | None = None


@dataclass(frozen=True)
class Row:
    """An entry in a ranking.

    Args:
        rank: From 1; equal accuracies share a rank.
        columns: The columns of its own results.json: "clean", one for each attack of the ranking, and the worst case.
    """

    rank: int
    entry: Entry
    columns: tuple[Column, ...]
    against_first: AgainstFirst

    @property
    def accuracies(self) -> list[dict[str, Any]]:
        """Mean and 95 % interval of each of its columns."""
        return [self.entry.accuracy[column.name] for column in self.columns]

    @property
    def worst(self) -> dict[str, Any]:
        """Mean and 95 % interval of what survives every attack."""
        return self.accuracies[-1]

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Column and reason of each figure of this ranking that the benchmark warns of, and of what belongs to none."""
        reported = self.entry.reported
        elsewhere = {column.name for column in reported.columns} - {column.name for column in self.columns}
        return [(column, reason) for column, reason in reported.flags if column not in elsewhere]


@dataclass(frozen=True)
class Ranking:
    """Entries that were measured in the same way.

    Args:
        protocol: The protocol that they share, in the words of the first entry; of the attacks, those in the ball.
        worst: The worst case, whose ball is the threat model, as the first entry names it.
        attacks: The attacks' names, in their order.
        rows: By rank.
        number: Which protocol it is of those with the same data set, images per class and ball, from 1.
        apart: In what its protocol differs from the first of these.
    """

    ipc: float
    protocol: dict[str, Any]
    worst: Column
    attacks: tuple[str, ...]
    rows: tuple[Row, ...]
    number: int
    apart: str

    @property
    def title(self) -> str:
        """Data set, images per class and threat model in words."""
        protocol = f", protocol {self.number}" if self.number > 1 else ""
        return f"{self.protocol['dataset']}, IPC {self.ipc:g}, {self.worst.ball}{protocol}"

    @property
    def ranked_by(self) -> str:
        """What the rank follows: the only attack, or what survives all of several."""
        united = [column.attack for column in self.rows[0].columns[1:-1] if column.name in self.worst.members]
        return united[0] if len(united) == 1 else f"the worst case of {', '.join(united)}"


class _Candidate(NamedTuple):
    """An entry with its columns at one ball."""

    entry: Entry
    columns: tuple[Column, ...]
    protocol: dict[str, Any]

    @property
    def mean(self) -> float:
        return float(self.entry.accuracy[self.columns[-1].name]["mean"])


def rank(entries: Iterable[Entry]) -> list[Ranking]:
    """Rank entries; only those that were measured in the same way stand in one ranking.

    Returns:
        The rankings by data set, images per class, norm and radius; those of one topic in the order of their first
        entries. An entry that was measured in several balls stands in one ranking for each.

    Raises:
        UnusableInput: If an entry would stand in none.
    """
    candidates = [one for entry in entries for one in _candidates(entry)]
    rankings = []
    for _, of_topic in groupby(sorted(candidates, key=_topic), key=_topic):
        groups: list[list[_Candidate]] = []
        for candidate in of_topic:
            for group in groups:
                if not any(_differing(one, candidate) for one in group):
                    group.append(candidate)
                    break
            else:
                groups.append([candidate])
        rankings += [_ranking(group, number, groups[0]) for number, group in enumerate(groups, start=1)]
    return rankings


def _topic(one: _Candidate) -> tuple[Any, ...]:
    worst = one.columns[-1]
    return one.protocol["dataset"], one.entry.ipc, worst.norm, worst.eps_value


def _candidates(entry: Entry) -> Iterable[_Candidate]:
    reported = entry.reported
    worst_cases = [column for column in reported.columns if column.kind == "worst"]
    if not worst_cases:
        raise UnusableInput(
            f"expected a worst case in {entry.path}, by which it is ranked, got none: benchmark the images again"
        )
    for column in worst_cases:
        attacked = attacks_in(reported.columns, column)
        pairs = zip(reported.columns[1:], reported.protocol["attacks"])
        protocol = {**reported.protocol, "attacks": [attack for one, attack in pairs if one in attacked]}
        yield _Candidate(entry, (reported.columns[0], *attacked, column), protocol)


def _differing(one: _Candidate, other: _Candidate) -> dict[str, tuple[Any, Any]]:
    return differing_settings(one.protocol, other.protocol)


def _ranking(group: Sequence[_Candidate], number: int, first_of_topic: Sequence[_Candidate]) -> Ranking:
    ordered = sorted(group, key=lambda one: (-one.mean, one.entry.label))
    rows = []
    for one in ordered:
        higher = sum(other.mean > one.mean for other in ordered)
        rows.append(Row(higher + 1, one.entry, one.columns, _against(one, ordered[0])))
    # The first entry may not tell the setting in which another one of its group differs.
    differing = next(filter(None, (_differing(one, group[0]) for one in first_of_topic)), {})
    apart = (f"{path} ({shown_setting(b)} instead of {shown_setting(a)})" for path, (a, b) in differing.items())
    return Ranking(
        ipc=group[0].entry.ipc,
        protocol=ordered[0].protocol,
        worst=ordered[0].columns[-1],
        attacks=tuple(column.attack for column in ordered[0].columns[1:-1]),
        rows=tuple(rows),
        number=number,
        apart="; ".join(apart),
    )


def _against(one: _Candidate, first: _Candidate) -> AgainstFirst:
    if one is first:
        return AgainstFirst("first")
    mine, firsts = one.columns[-1].name, first.columns[-1].name
    measured, best = one.entry.measured, first.entry.measured
    paired = difference(measured, mine, best, firsts, pair_sets=False) if measured and best else None
    if min(one.entry.reported.count, first.entry.reported.count) == 1:
        return AgainstFirst("no verdict", paired)
    if paired:
        return AgainstFirst("lower" if paired.sign < 0 else "not told apart", paired)
    apart = one.entry.accuracy[mine]["ci95"][1] < first.entry.accuracy[firsts]["ci95"][0]
    return AgainstFirst("lower" if apart else "not told apart")
