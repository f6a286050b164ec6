"""The settings that the page lists, one per row, with a column for each benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.results_file import Reported
from guard_plugin.evaluation.proof import made_under_in_words

__all__ = ["ledger_settings", "names_in", "own_settings", "settings_rows", "shared_settings", "shown"]


def shared_settings(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the protocol that several benchmarks share, without the attacks, which have a table of their own."""
    own = ("attacks", "normalization", "seeds")
    shared = {key: value for key, value in protocol.items() if key not in own}
    # Students may learn at a rate that was learned along with the images: it is listed with each benchmark's own.
    shared["recipe"] = {key: value for key, value in (shared["recipe"] or {}).items() if key != "learning_rate"}
    return shared


def own_settings(benchmark: Reported) -> dict[str, Any]:
    """Return what a benchmark measured, and the settings that may differ between benchmarks of one protocol."""
    return {
        **benchmark.results["subject"],
        "made_under": "; ".join(made_under_in_words(benchmark.results["subject"])) or None,
        "seeds": benchmark.protocol["seeds"],
        "normalization": benchmark.protocol.get("normalization"),
        "learning_rate": (benchmark.protocol["recipe"] or {}).get("learning_rate"),
    }


def ledger_settings(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return by label, and run where there are several, what the page lists of the distilling runs' ledgers."""
    keys = ("adapter", "script", "outcome", "penalty", "loss_calls", "penalty_value", "host", "versions")
    return {
        f"{label}, run {run}" if len(benchmark.ledgers) > 1 else label: {
            key: ledger[key] for key in keys if key in ledger
        }
        for label, benchmark in comparison.benchmarks.items()
        for run, ledger in enumerate(benchmark.ledgers, start=1)
    }


def names_in(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return each key of the mappings once, in the order in which they come."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def settings_rows(columns: Iterable[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Return "recipe: epochs" -> its text in each column of (nested) settings, None where there is no such setting."""
    flat = [dict(_flattened("", settings)) for settings in columns]
    return {name: [settings.get(name) for settings in flat] for name in names_in(flat)}


def _flattened(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flattened(f"{path}: {key}" if path else str(key), inner)
    elif path:
        yield path, shown(value)


def shown(value: Any) -> str:
    """Write a setting for people."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
