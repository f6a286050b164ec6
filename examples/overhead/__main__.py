"""What does one training step cost with each penalty, in time and in memory?

    python -m examples.overhead --arch ConvNetW64 --batch-size 128 --rounds 15 --out overhead
    python -m examples.overhead --arch resnet18 --batch-size 32 --rounds 15 --out overhead

A step is what a training script does with one batch: forward, loss, backward, SGD. Every method has a copy of the
network and, on a CPU, a process of its own, as a script has: in one process a method profits from the memory that
others have left in the heap. In every round each makes `--steps` steps, in an order that rotates; a ratio is to the
plain step of the same round. Time is the clock's or, for a machine that others use too, the process's own on the CPU.
"GUARD" and the other penalties go through `guard_plugin.wrap`, as users have them. "authors" are the passes of GUARD's
published scripts (yumozi/GUARD at 493b19c), written anew from their description, as comparators.

Written to OUT: per case a file of JSON lines (run again, it goes on where it was), and table.md and overhead.png of all
cases in OUT. Memory is the peak above what is held between steps: on a CPU of all that torch's allocator gave out
(not oneDNN's own scratch memory), as its profiler reports it; on CUDA `torch.cuda.max_memory_allocated`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.overhead.case import Case
from examples.overhead.contenders import CLOCKS
from examples.overhead.report import draw, read_case, table
from examples.overhead.rounds import measure
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.evaluation.distributed import usable_device


def main() -> None:
    """Measure one case, and print the table of all cases in the folder."""
    given = _arguments()
    if given.rounds < 2:
        raise UnusableInput(f"expected --rounds >= 2, as quartiles are taken over them, got {given.rounds}")
    device = usable_device(given.device)
    if device.type == "cuda" and given.clock == "cpu":
        raise UnusableInput("expected --clock wall on CUDA: the CPU's time is not the GPU's")
    size = {"batch_size": given.batch_size, "size": given.size, "classes": given.classes}
    how = {"steps": given.steps, "seed": given.seed, "clock": given.clock, "threads": given.threads}
    case = Case(given.arch, **size, **how)
    given.out.mkdir(parents=True, exist_ok=True)
    measure(case, device, given.rounds, given.out / f"{case.name}.jsonl", given.only)
    cases = [read_case(file) for file in sorted(given.out.glob("*.jsonl"))]
    text = "\n".join(table(one) for one in cases)
    (given.out / "table.md").write_text(text)
    print(text)
    draw(cases, given.out / "overhead.png")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.overhead", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--arch", default="ConvNetW64")
    add("--batch-size", type=int, default=128)
    add("--size", type=int, default=32, help="height and width of the images")
    add("--classes", type=int, default=10)
    add("--rounds", type=int, default=15, help="at least 2; in all, with those of earlier runs")
    add("--steps", type=int, default=1, help="of each method in a round")
    add("--threads", type=int, default=1)
    add("--device", default="cpu")
    clock = "cpu: what the process used, on a machine that others use too"
    add("--clock", choices=CLOCKS, default="wall", help=clock)
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True)
    add("--only", action="append", metavar="STEP", help="measure this step, by name; may be repeated")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except GuardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
