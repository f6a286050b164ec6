"""The table of a sweep whose settings were run with several seeds: of its sweep.jsonl files, printed anew.

python examples/sweep_table.py docs/measurements/settings-*.jsonl
"""

import argparse
import json
import statistics
from collections.abc import Iterable
from pathlib import Path


def _spread(values: list[float]) -> str:
    """The mean in percent, and the standard deviation over seeds."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{deviation}"


def _gain(values: list[float], plain: list[float]) -> str:
    """The mean difference from the plain runs of the same seeds, in points, and its standard error."""
    differences = [100 * (value - beside) for value, beside in zip(values, plain)]
    error = f" ± {statistics.stdev(differences) / len(differences) ** 0.5:.1f}" if len(differences) > 1 else ""
    return f"{statistics.mean(differences):+.1f}{error}"


def _setting(line: dict) -> tuple:
    return (line["strength"] > 0, line["form"], line["h"], line["strength"], line["h_ramp"])


def table_over_seeds(lines: Iterable[dict]) -> str:
    """Accuracies of the plain run in percent (mean and deviation over seeds), of others as differences from it.

    A difference is between runs of the same seed; what stands behind it is its standard error.
    """
    runs: dict[tuple, dict[int, dict]] = {}
    for line in sorted(lines, key=_setting):
        runs.setdefault(_setting(line), {})[line["seed"]] = line
    plain = next(of_seeds for (penalised, *_), of_seeds in runs.items() if not penalised)
    columns = list(next(iter(plain.values()))["accuracy"])
    rows = [["setting", *columns, "share of the loss (%)", "seeds"], ["---"] * (len(columns) + 3)]
    for (penalised, form, h, strength, ramp), of_seeds in runs.items():
        seeds = sorted(of_seeds.keys() & plain.keys())
        name = f"{form}, {h:g}, {strength:g}{f', ramp {ramp}' if ramp else ''}" if penalised else "plain"
        cells, share = [], ""
        for column in columns:
            values = [of_seeds[seed]["accuracy"][column] for seed in seeds]
            beside = [plain[seed]["accuracy"][column] for seed in seeds]
            cells.append(_gain(values, beside) if penalised else _spread(values))
        if penalised:
            share = f"{100 * statistics.mean(of_seeds[s]['penalty']['share']['median'] for s in seeds):.2g}"
        rows.append([name, *cells, share, str(len(seeds))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Print one table for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    for file in parser.parse_args().files:
        print(f"\n{file.name}\n")
        print(table_over_seeds(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()))


if __name__ == "__main__":
    main()
