"""The geometry of the page's charts, in the units of their SVG, which charts.html.j2 draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.results_file import Column
from guard_plugin.evaluation.tables import percent
from guard_plugin.versions import strict_zip

__all__ = ["BOTTOM", "HEIGHT", "LEFT", "RIGHT", "TOP", "WIDTH", "Chart", "Point", "eps_charts"]

WIDTH, HEIGHT = 300, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 294, 28, 182
"""The edges of the area in which points lie; labels lie around it."""

_MARGIN = 8
_BESIDE = 10
_LETTER = 6.4  # width of a digit of the labels
_STEPS = (1, 2, 5, 10, 20)  # percent points between two lines of the grid; all divide 100
_MOST_STEPS = 5


class Point(NamedTuple):
    """An accuracy in a chart: where it lies, and where its 95 % interval ends."""

    x: float
    y: float
    low: float
    high: float


class Scale(NamedTuple):
    """The part of the percents that a chart shows."""

    low: int
    high: int
    step: int

    @classmethod
    def around(cls, accuracies: Sequence[float]) -> Scale:
        """Return the least scale that holds all of these fractions."""
        least, most = (100 * min(max(of(accuracies), 0.0), 1.0) for of in (min, max))
        for step in _STEPS:
            low = min(math.floor(least / step) * step, 100 - step)
            high = max(math.ceil(most / step) * step, low + step)
            if high - low <= _MOST_STEPS * step:
                break
        return cls(low, high, step)

    def y(self, accuracy: float) -> float:
        """Return where a fraction lies."""
        return round(BOTTOM - (BOTTOM - TOP) * (100 * accuracy - self.low) / (self.high - self.low), 1)

    @property
    def levels(self) -> list[tuple[int, float]]:
        """The lines of the grid, from the bottom up: percent and y."""
        return [(level, self.y(level / 100)) for level in range(self.low, self.high + 1, self.step)]


class Chart(NamedTuple):
    """Accuracy against eps, for every benchmark."""

    attack: str  # the attack's name, or "worst case"
    norm: str
    description: str  # the figures in words
    is_curve: bool  # whether points are joined: two points, clean and one eps, make no curve
    ticks: list[tuple[str, float]]  # label and x of each eps; the label is empty where there is no place for it
    unit: str  # of the ticks
    levels: list[tuple[int, float]]  # percent and y of each line of the grid, from the bottom up
    series: list[list[Point]]  # the points of each benchmark, by rising eps


def eps_charts(comparison: Comparison) -> list[Chart]:
    """Return a chart for the worst cases, and one for each attack, of each norm."""
    charts: dict[tuple[str, str], list[Column]] = {}
    for column in sorted(comparison.columns, key=lambda column: column.kind != "worst"):
        if column.kind != "clean":
            charts.setdefault((column.attack, column.norm_label), []).append(column)
    return [_chart(comparison, attack, norm, columns) for (attack, norm), columns in charts.items()]


def _chart(comparison: Comparison, attack: str, norm: str, columns: Sequence[Column]) -> Chart:
    attacked = [(column.eps or "", column.eps_value or 0.0, column.name) for column in columns]
    radii = [("0", 0.0, "clean"), *sorted(attacked, key=itemgetter(1))]
    is_curve = len(radii) > 2
    # Without lines, points stand beside each other, so that their error bars can be told apart.
    beside = 0 if is_curve else _BESIDE
    spread = beside * (len(comparison.benchmarks) - 1)
    first_x, last_x = LEFT + _MARGIN + spread / 2, RIGHT - _MARGIN - spread / 2
    xs = [first_x + (last_x - first_x) * radius / radii[-1][1] for _, radius, _ in radii]
    every = (comparison.accuracy[column].values() for _, _, column in radii)
    scale = Scale.around([bound for entry in chain(*every) for bound in (*entry["ci95"], entry["mean"])])
    series, descriptions = [], []
    for index, label in enumerate(comparison.benchmarks):
        entries = [comparison.accuracy[column][label] for _, _, column in radii]
        offset = beside * index - spread / 2
        series.append(
            [
                Point(round(x + offset, 1), *map(scale.y, (entry["mean"], *entry["ci95"])))
                for x, entry in strict_zip(xs, entries)
            ]
        )
        means = (f"{percent(entry['mean'])} % at eps {eps}" for (eps, _, _), entry in strict_zip(radii, entries))
        descriptions.append(f"{label}: {', '.join(means)}")
    in_255ths = all(eps.endswith("/255") for eps, _, _ in radii[1:])
    return Chart(
        attack=attack,
        norm=norm,
        description="; ".join(descriptions),
        is_curve=is_curve,
        ticks=_ticks([eps.removesuffix("/255") if in_255ths else eps for eps, _, _ in radii], xs),
        unit=f"eps ({norm}){', in 1/255' if in_255ths else ''}",
        levels=scale.levels,
        series=series,
    )


def _ticks(labels: Sequence[str], xs: Sequence[float]) -> list[tuple[str, float]]:
    """Label the ticks from left to right, but for those whose label would touch the last one."""
    ticks, free_from = [], -1.0
    for label, x in strict_zip(labels, xs):
        half = _LETTER * len(label) / 2
        if x - half > free_from:
            ticks.append((label, round(x, 1)))
            free_from = x + half + 2
        else:
            ticks.append(("", round(x, 1)))
    return ticks
