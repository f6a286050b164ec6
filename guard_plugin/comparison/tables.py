"""The page's tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guard_plugin.comparison.charts import difference_strip, marker
from guard_plugin.comparison.columns import Column
from guard_plugin.comparison.comparing import Comparison, Difference
from guard_plugin.comparison.markup import DASH, MINUS, Content, Markup, tag, typeset
from guard_plugin.comparison.words import percent, points

__all__ = ["accuracy_table", "attack_table", "cost_table", "scrolling", "settings_table"]


_LONG = 32  # characters, of a cell that may be broken


def scrolling(caption: str, head: Content, body: Content) -> Markup:
    """A table in a container of its own, in which a narrow screen can scroll it.

    Args:
        caption: What it shows.
        head: Its header's rows.
        body: Its body's rows.
    """
    table = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", body))
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)


def accuracy_table(comparison: Comparison) -> Markup:
    """Per column, every folder's accuracy, and every difference from the first."""
    several = len({column.norm for column in comparison.columns if column.norm}) > 1
    limit = max(max(abs(one.low), abs(one.high)) for row in comparison.differences.values() for one in row.values())
    head = tag(
        "tr",
        _header("Attack, eps"),
        (_header(marker(i), " ", label, class_="number") for i, label in enumerate(comparison.benchmarks)),
        (
            (
                _header(f"{label} {MINUS} {comparison.first}", class_="number"),
                _header(f"±{percent(limit)} points", class_="centre"),
            )
            for label in comparison.others
        ),
    )
    kinds = [column.kind for column in comparison.columns]
    rows = (
        tag(
            "tr",
            tag("th", column.attack, tag("span", _ball(column, several), class_="interval"), scope="row"),
            (tag("td", _accuracy(entry), class_="number") for entry in comparison.accuracy[column.name].values()),
            (_difference(one, limit or 1.0) for one in comparison.differences[column.name].values()),
            class_="break" if i and column.kind != kinds[i - 1] else False,
        )
        for i, column in enumerate(comparison.columns)
    )
    return scrolling(
        "Accuracy in percent and differences in percent points, each with its 95 % interval. Bold differences, and "
        "filled dots, have intervals that exclude 0.",
        head,
        rows,
    )


def _header(*content: Content, **attributes: str) -> Markup:
    return tag("th", *content, scope="col", **attributes)


def _ball(column: Column, several_norms: bool) -> str:
    if column.eps is None:
        return ""
    return f"{column.eps} {(column.norm or '').capitalize()}" if several_norms else column.eps


def _accuracy(entry: Mapping[str, Any]) -> list[Markup]:
    low, high = entry["ci95"]
    return [
        Markup(percent(entry["mean"])),
        tag("span", f"{percent(low)}{DASH}{percent(high)}", class_="interval"),
    ]


def _difference(one: Difference, limit: float) -> list[Markup]:
    interval = tag("span", typeset(f"{points(one.low)} to {points(one.high)}"), class_="interval")
    return [
        tag("td", typeset(points(one.value)), interval, class_=f"number difference{' clear' if one.sign else ''}"),
        tag("td", difference_strip(one, limit), class_="drawn"),
    ]


def settings_table(caption: str, settings: Mapping[str, Mapping[str, Any] | None]) -> Markup:
    """Settings of one or several things side by side.

    Args:
        caption: What they are.
        settings: Column header -> its settings, nested or not; None where there are none. A lone header "" is not
            shown.
    """
    flat = {header: dict(_flattened("", values or {})) for header, values in settings.items()}
    names = dict.fromkeys(name for values in flat.values() for name in values)
    headers = [_header("Setting"), *(_header(header or "Value") for header in flat)]
    rows = (
        tag(
            "tr",
            tag("th", name, scope="row"),
            (
                tag("td", values.get(name, DASH), class_="wide" if len(values.get(name, "")) > _LONG else False)
                for values in flat.values()
            ),
        )
        for name in names
    )
    return scrolling(caption, tag("tr", headers), rows)


def _flattened(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flattened(f"{path}: {key}" if path else str(key), inner)
    elif path:
        yield path, _shown(value)


def _shown(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def attack_table(attacks: Sequence[Mapping[str, Any]]) -> Markup:
    """Every parameter of every attack."""
    names = dict.fromkeys(name for attack in attacks for name in attack)
    rows = (
        tag(
            "tr",
            (
                tag(
                    "th" if name == "name" else "td",
                    _shown(attack[name]) if name in attack else DASH,
                    scope="row" if name == "name" else False,
                )
                for name in names
            ),
        )
        for attack in attacks
    )
    return scrolling("Every parameter of the attacks", tag("tr", (_header(name) for name in names)), rows)


def cost_table(comparison: Comparison) -> Markup:
    """What each column cost, over all students."""
    costs = {label: one.results["cost"] for label, one in comparison.benchmarks.items()}
    parts = list(dict.fromkeys(part for cost in costs.values() for part in cost))
    head = [
        tag(
            "tr",
            tag("th", "Column", scope="col", rowspan=2),
            (tag("th", label, scope="colgroup", colspan=len(parts), class_="number") for label in costs),
        ),
        tag("tr", (_header(part, class_="number") for _ in costs for part in parts)),
    ]
    rows = (
        tag(
            "tr",
            tag("th", column.name, scope="row"),
            (
                tag("td", _cost(cost.get(part, {}).get(column.name)), class_="number")
                for cost in costs.values()
                for part in parts
            ),
        )
        for column in comparison.columns
        if column.kind != "worst"
    )
    return scrolling(
        "Cost over all students: wall-clock seconds, and examples times forward and backward passes", head, rows
    )


def _cost(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
