"""Reproduce the paper's tables: distil each cell, train and attack students, compare the arms.

    python -m examples.reproduce 5 --out results --data DIR --dataset FashionMNIST          # our baselines, on a CPU
    python -m examples.reproduce 5 --out results --data DIR --cell 1/4                      # one machine of four
    python -m examples.reproduce 5 --out results --data DIR --scale hosts --hosts FOLDER --method dc      # DC's script
    python -m examples.reproduce 5 --scale paper --hosts FOLDER                             # prints and checks commands

FOLDER holds unmodified clones of the hosts, by their names on GitHub. At ``--scale small`` and ``hosts``, a command
that was killed is continued, and nothing is done twice. A cell is a distillation (method, penalty, data set, images per
class, seed); all seeds of an arm are measured together, because distilled sets are what is independent. ``--cell I/N``
takes each N-th of these groups, for a Slurm array or any queue.

OUT/ATTACKS-N/measured and OUT/ATTACKS-N/compared hold what was found with these attacks on N images, and how (of the
hosts, OUT/hosts-ATTACKS-N; with --epochs E, OUT/ATTACKS-N-epochsE); OUT/cells, the steps of the distillations, may be
deleted.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from examples.reproduce import hosted, small
from examples.reproduce.cells import ARMS, TABLES, Cell, dealt, groups
from examples.reproduce.paper import check, commands_of
from examples.reproduce.running import is_of_hosts, record_of, run_once
from examples.reproduce.small import Distillation, Scale
from guard_plugin.files import atomic_file

NEAR = "pgd100,square,autoattack,cw,mim20"


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.reproduce", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("tables", nargs="+", type=int, choices=tuple(TABLES), help="numbers of the paper's tables")
    scales = "small: our baselines, on a CPU; hosts: their scripts, likewise; paper: the paper's, prints commands"
    add("--scale", default="small", choices=("small", "hosts", "paper"), help=scales)
    add("--out", type=Path, default=Path("reproduced"), help="folder of the cells and results")
    add("--data", type=Path, default=Path("data"), help="folder of the data sets")
    add("--dataset", nargs="+", default=["FashionMNIST"], help="data sets, except at the paper's scale")
    add("--method", nargs="+", help="only these methods of the tables")
    add("--arm", nargs="+", choices=tuple(ARMS), help="these penalties in place of the tables'")
    add("--ipc", nargs="+", type=int, help="only so many images per class")
    add("--seeds", type=int, default=5, help="distilled sets per arm")
    add("--students", type=int, default=2, help="students per distilled set")
    add("--epochs", type=int, help="epochs of students, in place of their recipe's")
    add("--attacks", default=NEAR, help="attacks at --eps")
    add("--eps", default="1/255", help="radii of the attacks")
    add("--n-examples", type=int, default=1000, help="test images that are attacked")
    add("--cell", default="1/1", metavar="I/N", help="this machine's share of the groups")
    add("--hosts", type=Path, help="folder of clones: run at --scale hosts, checked at --scale paper")
    args = parser.parse_args()
    if args.scale == "hosts" and args.hosts is None:
        parser.error("--scale hosts needs --hosts FOLDER, the folder of the hosts' clones")
    return args


def chosen(args: argparse.Namespace) -> dict[str, list[Cell]]:
    """Return the groups of cells of the tables that were asked for, each cell once."""
    arms = [ARMS[name] for name in args.arm or ()]
    cells = [cell for number in args.tables for cell in TABLES[number].cells(args.dataset, args.seeds, arms)]
    kept = [
        cell
        for cell in dict.fromkeys(cells)
        if (not args.method or cell.method in args.method) and (not args.ipc or cell.ipc in args.ipc)
    ]
    return groups(kept)


def _known(args: argparse.Namespace) -> str:
    """Return what the tables that were asked for have."""
    tables = [TABLES[number] for number in args.tables]
    return "; ".join(
        f"table {t.number} has {', '.join(t.methods)} at IPC {', '.join(map(str, t.ipcs))}" for t in tables
    )


def protocol(args: argparse.Namespace) -> Path:
    """Return the folder of what is measured in one way: "pgd100-1000" for PGD100 on 1,000 images."""
    name = f"{args.attacks.replace(',', '-')}-{args.n_examples}"
    if args.epochs:
        name += f"-epochs{args.epochs}"
    return args.out.resolve() / (f"hosts-{name}" if args.scale == "hosts" else name)


def plan(cells: list[Cell], args: argparse.Namespace) -> list[Distillation]:
    """Return how each cell is distilled at the scale that was asked for.

    Raises:
        ValueError: If one cannot be.
    """
    make = hosted.distillation if args.scale == "hosts" else small.distillation
    return [make(cell, Scale()) for cell in cells]


def measure(name: str, cells: list[Cell], args: argparse.Namespace) -> bool:
    """Distil the cells of one group and benchmark what came out, unless that was done; tell whether all went well."""
    how = plan(cells, args)
    options = ["benchmark", "--out", ".", "--adapter", cells[0].method, "--dataset", cells[0].dataset]
    options += ["--data", "{data}", "--attacks", args.attacks, "--eps", args.eps]
    options += ["--n-examples", str(args.n_examples), "--seeds", str(len(cells) * args.students), *how[0].options]
    if args.epochs:
        options += ["--epochs", str(args.epochs)]  # of several, the last one counts
    for one in how:
        for option, file in {"--distilled": one.distilled, **one.files}.items():
            options += [option, f"../../../cells/{file}"]
    out, places = args.out.resolve(), {"data": args.data.resolve()}
    if args.hosts:
        places["hosts"] = args.hosts.resolve()
    measured = protocol(args) / "measured" / name
    if record_of(measured, "benchmark").get("arguments") == options:
        return True
    for step in (step for one in how for step in one.steps):
        folder = out / "cells" / step.folder
        if step.reads_data and not folder.exists():
            folder.mkdir(parents=True)
            (folder / "data").symlink_to(places["data"])
        if not run_once(step.arguments, folder, "step", places):
            return False
    if not run_once(options, measured, "benchmark", places):
        return False
    with atomic_file(measured / "distilled.json") as file:
        file.write(json.dumps([_steps(one, out) for one in how], indent=2).encode())
    return True


def _steps(how: Distillation, out: Path) -> list[dict[str, object]]:
    """Return what each step of a cell did: its record, and its ledger's summary."""
    folders = [out / "cells" / step.folder for step in how.steps]
    return [
        {**record_of(folder, "step"), "ledger": json.loads((folder / "ledger.json").read_text())["summary"]}
        for folder in folders
    ]


def compare(found: dict[str, list[Cell]], out: Path) -> bool:
    """Compare each arm with the baseline, where both are measured in this folder; tell whether all went well."""
    ready = {name for name in found if record_of(out / "measured" / name, "benchmark")}
    well = True
    for name, cells in found.items():
        baseline = replace(cells[0], arm=ARMS["baseline"]).group
        if name != baseline and {name, baseline} <= ready:
            folders = [f"../../measured/{one}" for one in (baseline, name)]
            unpaired = ["--unpaired-sets"] if is_of_hosts(out) else []
            options = ["compare", *unpaired, *folders, "--html", "page.html"]
            well &= run_once(options, out / "compared" / name, "compare")
    return well


def main() -> int:
    """Run or print what the command line asks for; return the exit code."""
    args = _parsed()
    found = chosen(args)
    if args.scale == "paper":
        commands = [command for number in args.tables for command in commands_of(number)]
        return check(commands, args.hosts)
    try:
        if not found:
            raise ValueError(
                f"no cell of table {', '.join(map(str, args.tables))} has this method and IPC: {_known(args)}"
            )
        names = dealt(list(found), args.cell)
        for name in names:
            plan(found[name], args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finished = [measure(name, found[name], args) for name in names]
    return 0 if all([*finished, compare(found, protocol(args))]) else 1


if __name__ == "__main__":
    sys.exit(main())
