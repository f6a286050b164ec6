"""Kill a small benchmark at random moments, again and again: does it end with the same bytes?

    python -m tests.kill_benchmark --kills 50

A benchmark is run undisturbed; then in another folder it is started, killed with SIGKILL after a random time, started
again, and so on. When one has come to its end, "accuracy" in its results.json must hold the same bytes, and the next
folder begins, until so many kills have been survived. Exit code 1 if one was not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked process has no other threads

import torch

from guard_plugin.distilled import DistilledSet
from guard_plugin.evaluation import benchmark_distilled, load_images
from guard_plugin.spaces import Normalization


def main() -> int:
    """Run the loop."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return kill_loop(Path(folder), given.kills, random.Random(given.seed))


def kill_loop(folder: Path, kills: int, moments: random.Random) -> int:
    """Survive so many kills; 0 if every benchmark ended with the same bytes."""
    benchmark = _benchmark()
    begin = time.perf_counter()
    if _child(lambda: benchmark(folder / "whole")) != 0:
        raise SystemExit("the undisturbed benchmark failed")
    duration = time.perf_counter() - begin
    expected, done, ended = _accuracy(folder / "whole"), 0, 0
    while done < kills:
        out = folder / f"killed-{ended}"
        survived = done
        while _child(lambda out=out: benchmark(out), moments.uniform(0, duration)) is None:
            done += 1
            duration *= 1.02  # else a slower moment of the machine would never let one end
        if not (out / "results.json").exists():
            raise SystemExit(f"a benchmark in {out} failed after {done - survived} kills")
        ended += 1
        if _accuracy(out) != expected:
            print(f"FAILED: after {done - survived} kills, {out.name} ended with other bytes")
            return 1
    print(f"{done} kills, {ended} benchmarks ended with the same bytes; undisturbed, one takes {duration:.1f} s")
    return 0


def _benchmark() -> Callable[[Path], object]:
    digits = load_images("digits", split="train")
    space = Normalization((0.3,), (0.35,))
    distilled = DistilledSet(space.to_input(digits.pixels[:60]), digits.labels[:60], 10, space, dataset="digits")

    def run(out: Path) -> object:
        return benchmark_distilled(
            [distilled],
            dataset="digits",
            arch="MLP",
            attacks="fgsm,pgd10,pgd10-l2-targeted@0.5,square200",
            eps=["16/255"],
            n_examples=200,
            seeds=2,
            batch_size=16,
            out=out,
            subject={"kind": "distilled"},
        )

    return run


def _child(work: Callable[[], object], kill_after: float | None = None) -> int | None:
    """The exit code of a process that does the work; None if it was killed before its end."""
    child = os.fork()
    if child == 0:
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                work()
            os._exit(0)
        finally:
            os._exit(1)  # whatever was raised, this process must not go on as its parent
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def _accuracy(folder: Path) -> bytes:
    return json.dumps(json.loads((folder / "results.json").read_text())["accuracy"]).encode()


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
