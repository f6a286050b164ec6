"""Measure settings of the penalty on a validation split: how this project chooses the values that it recommends.

Each setting distils with a host's script under ``guard run``, trains students on what comes out, attacks them on images
that neither distillation nor test uses, and adds one line to OUT/sweep.jsonl. Run again after a kill, it goes on.

    python examples/sweep.py --out sweep --grid gradient:0.5,1:1,10,100 --grid loss:0.5:1,3 -- \
        --dataset digits --model ConvNetD2 --ipc 1 --Iteration 59 --num_exp 1 --num_eval 0 --batch_real 64 --lr_img 1

A grid is FORM:H,...:STRENGTH,...[:RAMP,...]; the plain run (strength 0) is always measured. What follows ``--`` is the
script's.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch

from guard_plugin.demo import baseline_folder
from guard_plugin.distilled import read_distilled, subject_of
from guard_plugin.evaluation import benchmark_distilled
from guard_plugin.plugins import installed_plugins


@dataclass(frozen=True)
class Setting:
    """One setting of the curvature penalty."""

    form: str
    h: float
    strength: float
    h_ramp: int = 0
    seed: int = 0

    @property
    def name(self) -> str:
        """The folder's name."""
        ramp = f"-r{self.h_ramp}" if self.h_ramp else ""
        setting = f"{self.form}-h{self.h:g}-s{self.strength:g}{ramp}" if self.strength else "plain"
        return f"{setting}-{self.seed}"

    def options(self) -> list[str]:
        """The setting as options of ``guard run``."""
        return [f"--form={self.form}", f"--h={self.h}", f"--strength={self.strength}", f"--h-ramp={self.h_ramp}"]


def settings_of(grids: list[str]) -> list[Setting]:
    """Expand the grids, the plain run first."""
    settings = [Setting("gradient", 1.0, 0.0)]
    for grid in grids:
        form, hs, strengths, *ramps = grid.split(":")
        steps = ramps[0].split(",") if ramps else ["0"]
        combined = product(hs.split(","), strengths.split(","), steps)
        settings += [Setting(form, float(h), float(strength), int(ramp)) for h, strength, ramp in combined]
    return list(dict.fromkeys(settings))


def measure(setting: Setting, args: argparse.Namespace) -> dict[str, object]:
    """Distil with one setting, and measure its students."""
    torch.set_num_threads(1)
    folder = args.out / setting.name
    folder.mkdir(parents=True, exist_ok=True)
    options = [*setting.options(), "--ledger", str(folder / "ledger.json")]
    command = [sys.executable, "-m", "guard_plugin", "run", *options]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run(
            [*command, "dc", str(args.script), *args.arguments, "--save_path", str(folder)],
            stdout=log,
            stderr=log,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    (file,) = folder.glob("res_*.pt")
    sets = read_distilled(installed_plugins().hook, "dc", file)
    finished = benchmark_distilled(
        sets,
        dataset=sets[0].dataset,
        arch=sets[0].arch,
        data_dir=args.val_data,
        split="val",
        attacks=args.attacks,
        eps=args.eps.split(","),
        n_examples=args.n_examples,
        seeds=args.students,
        out=folder / "benchmark",
        subject=subject_of("dc", {file: sets}),
        device=args.device,
    )
    ledger = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))
    accuracy = {column: [entry["mean"], entry["std"]] for column, entry in finished.results["accuracy"].items()}
    return {
        "name": setting.name,
        **asdict(setting),
        "guarded": ledger["loss_calls"]["guarded"],
        "mean_penalty": ledger["penalty_value"]["mean"],
        "accuracy": accuracy,
        "versions": finished.results["versions"],
    }


def table(lines: list[dict]) -> str:
    """The sweep as Markdown, accuracies in percent over the students."""
    columns = list(lines[0]["accuracy"])
    rows = [["setting", *columns, "mean penalty"], ["---"] * (len(columns) + 2)]
    for line in lines:
        cells = [f"{100 * mean:.1f} ± {100 * std:.1f}" for mean, std in line["accuracy"].values()]
        penalty = line["mean_penalty"]
        rows.append([line["name"], *cells, "" if penalty is None else f"{penalty:.3g}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def run_settings(
    settings: list[Setting], measure: Callable[[Setting], dict[str, object]], args: argparse.Namespace
) -> list[dict]:
    """Measure the settings that are left, one line in OUT/sweep.jsonl each; return all lines in order."""
    out, jobs = args.out, args.jobs
    out.mkdir(parents=True, exist_ok=True)
    protocol = {key: str(value) for key, value in vars(args).items() if key not in ("out", "jobs", "grid", "seeds")}
    claimed = out / "protocol.json"
    if claimed.exists() and json.loads(claimed.read_text()) != protocol:
        raise SystemExit(f"{out} holds a sweep with other arguments ({claimed}): choose another --out, or delete it")
    claimed.write_text(json.dumps(protocol, indent=2))
    file = out / "sweep.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    left = [setting for setting in settings if setting.name not in [line["name"] for line in lines]]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool, file.open("a", encoding="utf-8") as results:
        for done in as_completed([pool.submit(measure, setting) for setting in left]):
            lines.append(done.result())
            results.write(json.dumps(lines[-1]) + "\n")
            results.flush()
    return sorted(lines, key=lambda line: (line["strength"] > 0, line["form"], line["h"], line["strength"]))


def main() -> None:
    """Run the settings that are left, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--script", type=Path, default=baseline_folder("dc") / "main.py")
    parser.add_argument("--grid", action="append", default=[], metavar="FORM:H,...:STRENGTH,...[:RAMP,...]")
    parser.add_argument("--val-data", help="folder of torchvision's data sets for validation; digits needs none")
    parser.add_argument("--attacks", default="fgsm,pgd20")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--n-examples", type=int)
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("arguments", nargs="*", help="the script's, after --")
    args = parser.parse_args()
    print(table(run_settings(settings_of(args.grid), partial(measure, args=args), args)))


if __name__ == "__main__":
    main()
