"""The geometry of the page's charts, in the units of their SVG, which page.html.j2 draws."""

from collections.abc import Sequence
from dataclasses import dataclass

from guard_plugin.comparison.columns import Column
from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.formatting import percent

__all__ = ["BOTTOM", "COLOURS", "HEIGHT", "LEFT", "MARKS", "RIGHT", "WIDTH", "Chart", "Point", "eps_charts"]

WIDTH, HEIGHT = 300, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 294, 28, 182
"""The edges of the area in which points lie; labels lie around it."""

COLOURS = 6
MARKS = (
    "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0z",
    "M-4.2 -4.2h8.4v8.4h-8.4z",
    "M0 -5.04l5.04 9.24h-10.08z",
    "M0 -5.46l5.46 5.46l-5.46 5.46l-5.46 -5.46z",
    "M0 5.04l5.04 -9.24h-10.08z",
)
"""SVG paths of markers around 0, 0. With six colours, thirty benchmarks come before two look alike."""

_MARGIN = 8
_BESIDE = 10
_LETTER = 6.4  # width of a digit of the labels


@dataclass(frozen=True)
class Point:
    """An accuracy in a chart: where it lies, and where its 95 % interval ends."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """Accuracy against eps, for every benchmark.

    Args:
        attack: The attack's name, or "worst case".
        norm: The norm of eps.
        description: The figures in words.
        is_curve: Whether points are joined: two points, clean and one eps, make no curve.
        levels: Label and y of each horizontal rule, from 0 % on.
        ticks: Label and x of each eps; the label is empty where there is no place for it.
        unit: What the ticks are.
        series: The points of each benchmark, by rising eps.
    """

    attack: str
    norm: str
    description: str
    is_curve: bool
    levels: list[tuple[str, float]]
    ticks: list[tuple[str, float]]
    unit: str
    series: list[list[Point]]


def eps_charts(comparison: Comparison) -> list[Chart]:
    """Return a chart for the worst cases, and one for each attack, of each norm."""
    charts: dict[tuple[str, str], list[Column]] = {}
    for column in sorted(comparison.columns, key=lambda column: column.kind != "worst"):
        if column.kind != "clean":
            charts.setdefault((column.attack, column.norm_label), []).append(column)
    return [_chart(comparison, attack, norm, columns) for (attack, norm), columns in charts.items()]


def _chart(comparison: Comparison, attack: str, norm: str, columns: Sequence[Column]) -> Chart:
    # The clean accuracy is that at eps 0.
    radii = sorted([("0", 0.0, "clean"), *((c.eps or "", c.eps_value or 0.0, c.name) for c in columns)], key=_radius)
    is_curve = len(radii) > 2
    # Without lines, points stand beside each other, so that their error bars can be told apart.
    beside = 0 if is_curve else _BESIDE
    spread = beside * (len(comparison.benchmarks) - 1)
    first_x, last_x = LEFT + _MARGIN + spread / 2, RIGHT - _MARGIN - spread / 2
    xs = [first_x + (last_x - first_x) * radius / radii[-1][1] for _, radius, _ in radii]
    series, descriptions = [], []
    for index, label in enumerate(comparison.benchmarks):
        entries = [comparison.accuracy[column][label] for _, _, column in radii]
        offset = beside * index - spread / 2
        series.append([_point(x + offset, entry["mean"], *entry["ci95"]) for x, entry in zip(xs, entries, strict=True)])
        told = (f"{percent(entry['mean'])} % at eps {eps}" for (eps, _, _), entry in zip(radii, entries, strict=True))
        descriptions.append(f"{label}: {', '.join(told)}")
    in_255ths = all(eps.endswith("/255") for eps, _, _ in radii[1:])
    return Chart(
        attack=attack,
        norm=norm,
        description="; ".join(descriptions),
        is_curve=is_curve,
        levels=[(f"{level} %", _y(level / 100)) for level in (0, 25, 50, 75, 100)],
        ticks=_ticks([eps.removesuffix("/255") if in_255ths else eps for eps, _, _ in radii], xs),
        unit=f"eps ({norm}){', in 1/255' if in_255ths else ''}",
        series=series,
    )


def _radius(radius: tuple[str, float, str]) -> float:
    return radius[1]


def _point(x: float, mean: float, low: float, high: float) -> Point:
    return Point(round(x, 1), _y(mean), _y(low), _y(high))


def _y(accuracy: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * accuracy, 1)


def _ticks(labels: Sequence[str], xs: Sequence[float]) -> list[tuple[str, float]]:
    """Label the ticks from left to right, but for those whose label would touch the last one."""
    ticks, free_from = [], -1.0
    for label, x in zip(labels, xs, strict=True):
        half = _LETTER * len(label) / 2
        fits = x - half > free_from
        ticks.append((label if fits else "", round(x, 1)))
        if fits:
            free_from = x + half + 2
    return ticks
