"""Compare what two checkouts write at a fixed seed: ledgers, markers, results.json and tables must be the same bytes.

    python -m tests.equivalence BEFORE AFTER [--only demo,run] [--keep FOLDER]

BEFORE and AFTER are checkouts of this repository. Each case runs the same commands with each checkout, on a copy of
BEFORE's baselines, and every JSON file that the commands wrote is compared, as are their tables and exit codes. Only
seconds, processes and when they started are left out, and the checkout's path and commit and the folder's path have one
name each. Exit code 1 if a file differs.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_BUFFER = "--dataset digits --model MLP --num_experts 1 --train_epochs 2 --save_interval 1 --dsa False"
_DISTILL = (
    "--dataset digits --model MLP --ipc 1 --Iteration 1 --syn_steps 2 --expert_epochs 1 --max_start_epoch 1 --eval_it 0"
)
_SQUEEZE = "--dataset digits --model ConvNetBN16-32 --epochs 1 --batch-size 256 --n-train 600 --output-dir out"
_RECOVER = "--arch-path out/checkpoint.pth --syn-data-path . --iteration 2"
_DC = (
    "host/dc/main.py --dataset digits --model ConvNetD1 --ipc 1 --num_exp 1 --num_eval 1 --epoch_eval_train 2 "
    "--Iteration 1 --outer_loop 3 --inner_loop 2 --batch_real 8 --save_path out"
)
_DISTILLED = "out/res_DC_digits_ConvNetD1_1ipc.pt"
_MEASURED = "--dataset digits --arch MLP --data ."
_DEMO = "--students 2 --n-examples 40 --attacks fgsm,pgd3 --eps 16/255 --out demo"
_QUICK = f"--seeds 2 --attacks quick --n-examples 60 --adapter plain --eps 8/255 {_MEASURED}"

_ENDED_WELL = "exit code 0\n"

CASES: Mapping[str, Sequence[str]] = {
    "plugins": ["plugins --json", "doctor --json dc host/dc", "doctor --json mtt host/mtt"],
    "demo-dc": [f"demo --method dc --iterations 1 --experiments 2 {_DEMO}"],
    "demo-sre2l": [f"demo --method sre2l --iterations 40 {_DEMO}"],
    "run-dc": [f"run --strength 1 --h 0.5 --ledger ledger.json dc {_DC}"],
    "run-dc-loss": [f"run --strength 1 --h 0.5 --form loss --h-ramp 4 --ledger ledger.json dc {_DC}"],
    "run-dc-low": [f"run --strength 1 --h 0.5 --memory low --ledger ledger.json dc {_DC}"],
    "run-dc-zero": [f"run --strength 0 --ledger ledger.json dc {_DC}"],
    "run-dc-trades": [f"run --penalty trades --set eps=0.1 --ledger ledger.json dc {_DC}"],
    "run-dc-gradient-norm": [f"run --penalty gradient_norm --strength 0.1 --ledger ledger.json dc {_DC}"],
    "run-mtt": [
        f"run --strength 1 --h 0.5 --ledger ledger.json mtt host/mtt/buffer.py {_BUFFER} --buffer_path buffers",
        f"run --ledger later.json mtt host/mtt/distill.py {_DISTILL} --buffer_path buffers",
    ],
    "run-tesla": [f"run --ledger ledger.json tesla host/tesla/buffer.py {_BUFFER} --buffer_path buffers"],
    "run-sre2l": [
        f"run --strength 1 --h 0.5 --ledger ledger.json sre2l host/sre2l/squeeze.py {_SQUEEZE}",
        f"run --ledger later.json sre2l host/sre2l/recover.py {_RECOVER} --ipc-end 1 --jitter 1 --exp-name syn",
    ],
    "run-cda": [
        f"run --form loss --ledger ledger.json cda host/sre2l/squeeze.py {_SQUEEZE}",
        f"run --ledger later.json cda host/cda/recover.py {_RECOVER} --ipc-end 1 --jitter 1 --exp-name cda",
    ],
    "benchmark-quick": [
        f"benchmark --out a --distilled one.npz {_QUICK}",
        f"benchmark --out b --distilled other.npz {_QUICK}",
        "compare --json a b",
        "compare a b",
    ],
    "benchmark-paper": [f"benchmark --out a --n-examples 12 --checkpoint mlp.pt --attacks paper {_MEASURED}"],
    "benchmark-robustbench": [
        f"benchmark --out a --n-examples 8 --checkpoint mlp.pt --attacks robustbench --eps 8/255 {_MEASURED}"
    ],
    "benchmark-official": [
        f"benchmark --out a --n-examples 40 --checkpoint mlp.pt --attacks guard-official {_MEASURED}"
    ],
    "curvature": [f"curvature --json --h 0.5 --out a --checkpoint mlp.pt --n-examples 20 {_MEASURED}"],
    "bound": [
        f"run --strength 1 --h 0.5 dc {_DC}",
        f"bound --json --rho 0.5 --checkpoint mlp.pt --distilled {_DISTILLED} --adapter dc --n-examples 60 {_MEASURED}",
    ],
}

# Files that every case finds in its folder: ten real digits per class, in the place of distilled ones, and a network.
_MATERIAL = """
import numpy, torch
from sklearn.datasets import load_digits
torch.manual_seed(0)
digits = load_digits()
for name, first in (("one", 0), ("other", 10)):
    rows = numpy.concatenate([numpy.flatnonzero(digits.target == c)[first : first + 10] for c in range(10)])
    images = (digits.images[rows] / 16).astype("float32")[:, None]
    numpy.savez(f"{name}.npz", images=images, labels=digits.target[rows].astype("int64"))
hidden = [torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU()]
network = torch.nn.Sequential(torch.nn.Flatten(), *hidden, torch.nn.Linear(128, 10))
pixels = torch.tensor(digits.images / 16, dtype=torch.float32)
labels, optimizer = torch.tensor(digits.target), torch.optim.Adam(network.parameters())
for _ in range(60):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network((pixels - pixels.mean()) / pixels.std()), labels).backward()
    optimizer.step()
torch.save(network.state_dict(), "mlp.pt")
"""


def main() -> int:
    """Run the cases and say which files differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", default="", help="Cases whose names begin with one of these, comma separated.")
    parser.add_argument("--keep", type=Path, help="Keep what BEFORE wrote here, and use it again.")
    given = parser.parse_args()
    wanted = tuple(given.only.split(","))
    differing = 0
    with tempfile.TemporaryDirectory() as scratch:
        keep = given.keep or Path(scratch) / "kept"
        for name in [name for name in CASES if name.startswith(wanted)]:
            before = _kept(keep / f"{name}.json", name, given.before.resolve(), keep)
            after = _outputs(name, given.after.resolve(), keep, given.before.resolve())
            commands = {key: text for key, text in before.items() if key.startswith("command")}
            failed = [key for key, text in commands.items() if not text.startswith(_ENDED_WELL)]
            if failed:
                raise SystemExit(f"{name}, {failed[0]}: it fails in {given.before}, so that the case compares nothing")
            different = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
            differing += len(different)
            print(f"{'DIFFERENT' if different else 'equal':<10}{name}: {len(before)} outputs", flush=True)
            for key in different:
                print(f"  {key}: {_first_difference(before.get(key, ''), after.get(key, ''))}", flush=True)
    print(f"{differing} outputs differ" if differing else "all outputs are equal")
    return 1 if differing else 0


def _kept(file: Path, name: str, checkout: Path, keep: Path) -> dict[str, str]:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_outputs(name, checkout, keep, checkout)))
    outputs: dict[str, str] = json.loads(file.read_text())
    return outputs


def _outputs(name: str, checkout: Path, keep: Path, baselines: Path) -> dict[str, str]:
    """Run a case with a checkout; return every JSON file that it wrote, and what its commands printed."""
    folder = keep / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(baselines / "examples" / "baselines", folder / "host")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = f"{checkout}{os.pathsep}{checkout / 'adapters'}"
    subprocess.run([sys.executable, "-c", _MATERIAL], cwd=folder, env=environment, check=True)
    outputs = {}
    for number, command in enumerate(CASES[name]):
        words = [sys.executable, "-m", "guard_plugin", *shlex.split(command)]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        shown = done.stdout if "--json" in command or command.startswith(("compare", "demo")) else ""
        outputs[f"command {number}"] = f"exit code {done.returncode}\n{_without_times(shown)}"
        if done.returncode:
            outputs[f"command {number}"] += done.stderr
    for file in sorted(folder.rglob("*.json")):
        if not file.is_relative_to(folder / "host"):
            outputs[str(file.relative_to(folder))] = _without_seconds(file)
    names = {str(folder): "FOLDER", str(checkout): "CHECKOUT", _commit(checkout): "COMMIT"}
    return {key: _replaced(text, names) for key, text in outputs.items()}


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _replaced(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _without_times(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "second" not in line and not line.endswith(" s"))


def _without_seconds(file: Path) -> str:
    value: Any = json.loads(file.read_text())
    if file.name == "results.json":
        del value["cost"]["seconds"]
    return json.dumps(_without_runs(value), indent=2)


def _without_runs(value: Any) -> Any:
    """Leave out what differs from run to run: processes, and when they started."""
    if isinstance(value, dict):
        return {key: _without_runs(of) for key, of in value.items() if key not in ("process", "started")}
    return [_without_runs(one) for one in value] if isinstance(value, list) else value


def _first_difference(before: str, after: str) -> str:
    lines = zip([*before.splitlines(), "(ends)"], [*after.splitlines(), "(ends)"])
    return next((f"{a.strip()!r} became {b.strip()!r}" for a, b in lines if a != b), "one is missing")


if __name__ == "__main__":
    sys.exit(main())
