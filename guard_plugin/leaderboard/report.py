"""A leaderboard as text for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from guard_plugin.evaluation.tables import percent, text_table
from guard_plugin.foreign_text import on_one_line
from guard_plugin.leaderboard.ranking import Ranking, Row
from guard_plugin.leaderboard.words import against_in_words, interval_in_words, notes, sample_in_words, setting_in_words

__all__ = ["leaderboard_json", "leaderboard_text"]


def leaderboard_text(rankings: Sequence[Ranking]) -> str:
    """Write the rankings for people: accuracies in percent."""
    tables = (line for ranking in rankings for line in _table(ranking))
    return "\n".join([*tables, *map(on_one_line, notes(rankings))])


def _table(ranking: Ranking) -> Iterator[str]:
    yield ranking.title
    yield on_one_line(setting_in_words(ranking))
    if ranking.apart:
        yield on_one_line(f"apart from protocol 1, from which this one differs in {ranking.apart}")
    header = ("entry", "rank", ranking.ranked_by if len(ranking.attacks) == 1 else "worst case", "95 % CI", "clean")
    attacks = ranking.attacks if len(ranking.attacks) > 1 else ()
    rows = [(*header, *attacks, "against the first", "", "measured on", "figures", "penalty")]
    rows += [tuple(map(on_one_line, _cells(row))) for row in ranking.rows]
    yield text_table(rows)
    yield from (on_one_line(line) for row in ranking.rows for line in _below(row))
    yield ""


def _below(row: Row) -> Iterator[str]:
    label, proof = row.entry.label, row.entry.proof
    yield from (f"FLAGGED {label}, {column}: {reason}" for column, reason in row.flags)
    yield f"{label}: {proof.losses}"
    yield from (f"warning: {label}: {warning}" for warning in proof.warnings)


def _cells(row: Row) -> tuple[str, ...]:
    clean, *attacked, worst = row.accuracies
    return (
        row.entry.label,
        str(row.rank),
        percent(worst["mean"]),
        f"[{', '.join(map(percent, worst['ci95']))}]",
        percent(clean["mean"]),
        *([percent(one["mean"]) for one in attacked] if len(attacked) > 1 else ()),
        against_in_words(row.against_first),
        interval_in_words(row.against_first),
        sample_in_words(row),
        "records" if row.entry.measured else "as reported",
        row.entry.proof.penalty,
    )


def leaderboard_json(rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Describe the rankings for programs; accuracies and differences are fractions."""
    return {
        "schema": 1,
        "rankings": [
            {
                "dataset": ranking.protocol["dataset"],
                "ipc": ranking.ipc,
                "norm": ranking.worst.norm,
                "eps": ranking.worst.eps,
                "eps_value": ranking.worst.eps_value,
                "protocol": {key: value for key, value in ranking.protocol.items() if key != "normalization"},
                "protocol_number": ranking.number,
                "differs_from_protocol_1": ranking.apart,
                "entries": [_entry_json(row, ranking.attacks) for row in ranking.rows],
            }
            for ranking in rankings
        ],
        "notes": notes(rankings),
    }


def _entry_json(row: Row, attacks: Sequence[str]) -> dict[str, Any]:
    entry, against = row.entry, row.against_first
    clean, *attacked, worst = ({"mean": one["mean"], "ci95": list(one["ci95"])} for one in row.accuracies)
    one = against.difference
    return {
        "rank": row.rank,
        "label": entry.label,
        "path": str(entry.path),
        "results_sha256": entry.sha256,
        "has_records": entry.measured is not None,
        "method": entry.method,
        "distilled_sha256": entry.reported.results["subject"]["sha256"],
        "sets": entry.reported.count,
        "students": len(entry.reported.sets),
        "accuracy": {"clean": clean, "attacks": dict(zip(attacks, attacked)), "worst_case": worst},
        "against_first": {
            "verdict": against.verdict,
            "difference": None if one is None else {"value": one.value, "ci95": [one.low, one.high]},
        },
        "penalty": entry.proof.penalty,
        "losses": entry.proof.losses,
        "warnings": list(entry.proof.warnings),
        "flags": [{"column": column, "reason": reason} for column, reason in row.flags],
        "versions": entry.reported.results["versions"],
    }
