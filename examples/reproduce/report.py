"""Tables of what was measured: GUARD and the comparators against the baseline, as Markdown.

    python -m examples.reproduce.report docs/results/pgd100-1000

Of a baseline, accuracies in percent with their 95 % intervals; of another arm, the paired difference over distilled
sets in points, with its interval, marked where that excludes 0. "seconds" is the wall-clock time of distilling one
set, teacher or buffer included: the median over sets, which other work on the machine moves least.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from examples.reproduce.cells import ARMS, TABLES, Cell
from examples.reproduce.running import is_of_hosts, record_of
from guard_plugin.comparison import Measured, compare, read_benchmark
from guard_plugin.comparison.report import marked
from guard_plugin.evaluation.results import WORST_CASE
from guard_plugin.evaluation.statistics import confidence_interval
from guard_plugin.evaluation.tables import column_label, percent

__all__ = ["seconds_per_set", "tables"]

_DATASETS = ("digits", "MNIST", "FashionMNIST", "CIFAR10", "TinyImageNet")


def tables(out: Path) -> str:
    """Return a table for each data set of which something was measured.

    Raises:
        UnusableInput: If the files of a benchmark in OUT/measured do not belong together, or arms differ in how they
            were measured.
    """
    rows: dict[str, list[list[str]]] = {}
    for dataset in _DATASETS:
        for cell in dict.fromkeys(cell for table in TABLES.values() for cell in table.cells([dataset], 1)):
            if cell.arm.name == "baseline" and record_of(out / "measured" / cell.group, "benchmark"):
                rows.setdefault(dataset, []).extend(_rows(out, cell))
    return "\n\n".join(
        "\n".join([f"### {dataset}", "", *(f"| {' | '.join(row)} |" for row in _with_header(of))])
        for dataset, of in rows.items()
    )


def _with_header(rows: list[list[str]]) -> list[list[str]]:
    header, *_ = rows
    return [header, ["---"] * len(header), *(row for row in rows if row != header)]


def _rows(out: Path, cell: Cell) -> Iterator[list[str]]:
    """Yield a header, the baseline's accuracies, and each arm's differences from them."""
    folders = {name: out / "measured" / replace(cell, arm=arm).group for name, arm in ARMS.items()}
    found = {arm: read_benchmark(folder) for arm, folder in folders.items() if record_of(folder, "benchmark")}
    baseline = found.pop("baseline")
    yield ["method, IPC", "arm", *map(column_label, _columns(baseline)), "sets x students", "seconds"]
    name = f"{cell.method}, {cell.ipc}"
    yield [name, "baseline", *_accuracies(baseline), _sample(baseline), f"{seconds_per_set(folders['baseline']):.0f}"]
    for arm, measured in found.items():
        differences = compare([baseline, measured], pair_sets=not is_of_hosts(out)).differences
        points = [marked(one).rstrip() for label in _columns(baseline) for one in differences[label].values()]
        yield [name, arm, *points, _sample(measured), f"{seconds_per_set(folders[arm]):.0f}"]


def _columns(measured: Measured) -> list[str]:
    """Return the labels of the columns; the worst case of a single attack would be that attack's column again."""
    labels = list(measured.correct)
    worst = [label for label in labels if label.startswith(WORST_CASE)]
    return [label for label in labels if label not in worst] if len(labels) == 1 + 2 * len(worst) else labels


def _accuracies(measured: Measured) -> list[str]:
    found = [confidence_interval(measured.correct[label], measured.sets) for label in _columns(measured)]
    return [f"{percent(one.value)} [{percent(one.low)}, {percent(one.high)}]" for one in found]


def _sample(measured: Measured) -> str:
    return f"{measured.count} x {len(measured.sets) // measured.count}"


def seconds_per_set(folder: Path) -> float:
    """Return the median of the seconds that the sets of a measured folder took to distil."""
    sets = json.loads((folder / "distilled.json").read_text(encoding="utf-8"))
    return statistics.median(sum(step["seconds"] for step in steps) for steps in sets)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="what the driver measured in one way, in its --out")
    print(tables(parser.parse_args().out))


if __name__ == "__main__":
    main()
