"""What was measured, as a table and a picture."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.overhead.methods import PLAIN
from guard_plugin.diagnostics import matplotlib_figure

__all__ = ["Measured", "draw", "read_case", "table"]


@dataclass(frozen=True)
class Measured:
    """A case's file."""

    fixed: dict[str, Any]
    rounds: list[dict[str, float]]

    @property
    def title(self) -> str:
        """The case in words."""
        case = self.fixed["case"]
        return f"{case['arch']}, batch {case['batch_size']} of 3x{case['size']}x{case['size']}"

    def ratios(self, name: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the rounds' ratios to the plain step."""
        values = [one[name] / one[PLAIN] for one in self.rounds]
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return low, middle, high

    def memory_ratio(self, name: str) -> float:
        """Peak memory over the plain step's."""
        peaks = self.fixed["peak_bytes"]
        return peaks[name] / peaks[PLAIN]


def read_case(file: Path) -> Measured:
    """Read a case's file."""
    first, *others = map(json.loads, file.read_text().splitlines())
    return Measured(first, [one["seconds"] for one in others])


def table(case: Measured) -> str:
    """A case as Markdown."""
    used, settings = case.fixed["versions"], case.fixed["case"]
    rows = [_row(case, name) for name in case.fixed["methods"]]
    return "\n".join(
        [
            f"**{case.title}**: {len(case.rounds)} rounds of {settings['steps']} step(s), {used['device']} "
            f"({used['machine']}), {used['threads']} thread(s), {settings['clock']} time, torch {used['torch']}"
            + "".join(f", {name}={value}" for name, value in used["allocator"].items()),
            "",
            "| step | ms | time, ratio to plain [quartiles] | peak MiB | ratio | forwards | backwards |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _row(case: Measured, name: str) -> str:
    low, middle, high = case.ratios(name)
    milliseconds = 1000 * statistics.median(one[name] for one in case.rounds)
    forwards, backwards = case.fixed["passes"][name]
    cells = [
        name,
        f"{milliseconds:.0f}",
        "1" if name == PLAIN else f"**{middle:.2f}** [{low:.2f}, {high:.2f}]",
        f"{case.fixed['peak_bytes'][name] / 2**20:.0f}",
        f"{case.memory_ratio(name):.2f}",
        f"{forwards:g}",
        f"{backwards:g}",
    ]
    return "| " + " | ".join(cells) + " |"


def draw(cases: list[Measured], file: Path) -> None:
    """Draw the ratios of all cases: time, with quartiles, and memory."""
    figure = matplotlib_figure().Figure(figsize=(9, 0.8 + 0.4 * len(cases[0].fixed["methods"])), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    thickness = 0.8 / len(cases)
    for number, case in enumerate(cases):
        names = [name for name in case.fixed["methods"] if name != PLAIN]
        places = [place + (number - (len(cases) - 1) / 2) * thickness for place in range(len(names))]
        quartiles = [case.ratios(name) for name in names]
        middles = [middle for _, middle, _ in quartiles]
        spread = [[middle - low for low, middle, _ in quartiles], [high - middle for _, middle, high in quartiles]]
        left.barh(places, middles, thickness, xerr=spread, label=case.title)
        right.barh(places, [case.memory_ratio(name) for name in names], thickness)
        left.set_yticks(range(len(names)), names)
    for axes, what in ((left, "time"), (right, "peak memory")):
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel(f"{what} of a step, ratio to the plain step")
    left.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(cases), fontsize="small")
    figure.savefig(file, dpi=80)
