"""Measure settings of the penalty on SRe2L's pipeline: squeeze under ``guard run``, recover, relabel and validate.

Teachers and students are attacked on the validation split (the last tenth of the training images, which no step trains
on). Each setting with each seed adds one line to OUT/sweep.jsonl; run again after a kill, it goes on.

    python examples/sweep_squeeze.py --out sweep --data DIR --grid loss:0.25,0.5:1,3 --grid gradient:0.5:0.1,1 --seeds 3

A grid is FORM:H,...:STRENGTH,...[:RAMP,...]; the plain run (strength 0) is always measured.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from sweep import Setting, run_settings, settings_of
from sweep_table import table_over_seeds
from torch import nn

import guard_plugin
from guard_plugin.datasets import load_images
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import Normalization

BASELINES = Path(__file__).resolve().parent / "baselines"
sys.path.append(str(BASELINES))
from common.bn_networks import create_model
from common.data import DATASETS, enlarge


def pipeline(setting: Setting, folder: Path, args: argparse.Namespace) -> dict:
    """Run all four steps; return the squeeze's ledger."""
    seed = ["--seed", str(setting.seed)]
    data = ["--dataset", args.dataset, "--data-path", args.data or ".", *seed]
    squeeze = [*data, "--split", "val", "--output-dir", str(folder / "teacher"), *args.squeeze.split()]
    teacher = str(folder / "teacher" / "checkpoint.pth")
    recover = ["--arch-path", teacher, "--syn-data-path", str(folder), "--exp-name", "syn", *seed]
    validate = [*data, "--split", "val", "--train-dir", str(folder / "syn"), "--teacher", teacher]
    guard = ["-m", "guard_plugin", "run", *setting.options(), "--ledger", str(folder / "ledger.json"), args.method]
    scripts = BASELINES / "sre2l"
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        for command in (
            [*guard, scripts / "squeeze.py", *squeeze],
            [BASELINES / args.method / "recover.py", *recover, *args.recover.split()],
            [scripts / "validate.py", *validate, "--output-dir", folder / "student", *args.validate.split()],
        ):
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, *map(str, command)], stdout=log, stderr=log, check=True, env=environment)
    return json.loads((folder / "ledger.json").read_text(encoding="utf-8"))


def pixel_model(folder: Path, dataset: str) -> nn.Module:
    """Load what a step saved, as a classifier in pixel space."""
    (file,) = folder.glob("*.pth")
    saved = torch.load(file, weights_only=True)
    network = create_model(saved["arch"], DATASETS[dataset])
    network.load_state_dict(saved["model"])
    return PixelModel(network, Normalization(DATASETS[dataset].mean, DATASETS[dataset].std)).eval()


def measure(setting: Setting, args: argparse.Namespace) -> dict[str, object]:
    """Run the pipeline with one setting and one seed, and attack its teacher and its student."""
    torch.set_num_threads(1)
    images = load_images(args.dataset.partition("x")[0], args.data, "val", args.n_examples)
    pixels = enlarge(images.pixels, DATASETS[args.dataset].enlarged)
    folder = args.out / setting.name
    folder.mkdir(parents=True, exist_ok=True)
    penalty = pipeline(setting, folder, args)["penalty_value"]
    accuracy: dict[str, float] = {}
    for step in ("teacher", "student"):
        model = pixel_model(folder / step, args.dataset)
        for eps in args.eps.split(","):
            found = guard_plugin.benchmark(model, dataset=(pixels, images.labels), eps=eps, attacks=args.attack)
            accuracy[f"{step} clean"] = found.clean_accuracy
            accuracy[f"{step} {eps}"] = found.robust_accuracy[args.attack]
    return {
        "name": setting.name,
        **asdict(setting),
        "penalty": penalty,
        "accuracy": accuracy,
        "versions": {"torch": torch.__version__, "guard_plugin": guard_plugin.__version__},
    }


def main() -> None:
    """Run the settings that are left, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="sre2l", choices=("sre2l", "cda"))
    parser.add_argument("--dataset", default="FashionMNIST", choices=tuple(DATASETS))
    parser.add_argument("--data", help="folder of torchvision's data sets; digits needs none")
    parser.add_argument("--grid", action="append", default=[], metavar="FORM:H,...:STRENGTH,...[:RAMP,...]")
    parser.add_argument("--squeeze", default="--n-train 8000", help="further arguments of squeeze.py")
    parser.add_argument("--recover", default="", help="further arguments of recover.py")
    parser.add_argument("--validate", default="", help="further arguments of validate.py")
    parser.add_argument("--attack", default="pgd10")
    parser.add_argument("--eps", default="1/255,4/255,8/255")
    parser.add_argument("--n-examples", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    settings = [replace(setting, seed=seed) for seed in range(args.seeds) for setting in settings_of(args.grid)]
    print(table_over_seeds(run_settings(settings, partial(measure, args=args), args)))


if __name__ == "__main__":
    main()
