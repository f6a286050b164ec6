"""What does the tap cost a whole run of an unmodified script, at strength 0?

    python examples/strength_zero.py --adapter dc --runs 5 --out strength_zero.json HOST/main.py SCRIPT ARGS...

Runs `python SCRIPT ...` and `guard run --strength 0 ADAPTER SCRIPT ...` in turn, the order changing from pair to pair,
each in an empty folder, and takes the CPU time and the wall time of the whole process. What does not hang on the length
of a run, importing the plugin and finding the seams, is told apart by `SCRIPT --help` in place of the run.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from guard_plugin.evaluation.results import versions


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("script", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    plain = [sys.executable, str(given.script.resolve())]
    guarded = [sys.executable, "-m", "guard_plugin", "run", "--strength", "0", given.adapter, plain[1]]
    used = {**versions(torch.device("cpu")), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}
    whole = pairs(plain, guarded, given.arguments, given.runs)
    start = pairs(plain, guarded, ["--help"], given.runs)
    result = {"script": plain[1], "arguments": given.arguments, "versions": used, "runs": whole, "start": start}
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    for clock in ("cpu", "wall"):
        ratios = [one["guarded"][clock] / one["plain"][clock] for one in whole]
        extra = [one["guarded"][clock] - one["plain"][clock] for one in start]
        seconds = statistics.median(one["plain"][clock] for one in whole)
        print(
            f"{clock}: plain {seconds:.1f} s; ratio median {statistics.median(ratios):.4f} "
            f"[{min(ratios):.4f}, {max(ratios):.4f}] over {len(ratios)} pairs; start-up adds "
            f"{statistics.median(extra):.2f} s"
        )


def pairs(
    plain: list[str], guarded: list[str], arguments: Sequence[str], count: int
) -> list[dict[str, dict[str, float]]]:
    """Time both commands in turn."""
    found = []
    for number in range(count):
        commands = {"plain": plain, "guarded": guarded}
        names = list(commands) if number % 2 == 0 else list(commands)[::-1]
        found.append({name: seconds([*commands[name], *arguments]) for name in names})
    return found


def seconds(command: Sequence[str]) -> dict[str, float]:
    """Run a command in an empty folder, and return the CPU and the wall time that it took."""
    with tempfile.TemporaryDirectory() as folder:
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr}")
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


if __name__ == "__main__":
    main()
