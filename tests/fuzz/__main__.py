"""Compare guard_plugin with an independent reference on random cases, for so many seconds.

    python -m tests.fuzz --seconds 60
    python -m tests.fuzz --seed 3 --only networks --case 17

A disagreement is printed with the command that runs its case again; the exit code is then 1. docs/reliability.md says
what the cases are.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

import torch

from tests.fuzz import file_run, host_run, network_run
from tests.fuzz.outcome import Case, Disagreement
from tests.fuzz.report import table

KINDS: dict[str, Callable[[int, int], str]] = {
    "networks": network_run.run_case,
    "hosts": host_run.run_case,
    "files": file_run.run_case,
}
"""From a kind's name to what runs the case of a seed and a number, and returns its outcome."""


def main(arguments: list[str] | None = None) -> int:
    """Run cases until the time is over; return 1 if there was a disagreement."""
    given = _options().parse_args(arguments)
    torch.set_num_threads(1)
    if given.spec is not None:
        return _run_spec(given.spec)
    kinds = given.only or list(KINDS)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    spent = dict.fromkeys(kinds, 0.0)
    while sum(spent.values()) < given.seconds:
        kind = min(kinds, key=spent.__getitem__)  # each kind gets its share of the time
        number = (given.start if given.case is None else given.case) + sum(counts[kind].values())
        begin = time.monotonic()
        outcome = _run(Case(given.seed, kind, number), shrink=not given.keep_going)
        spent[kind] += time.monotonic() - begin
        counts[kind][outcome] += 1
        if given.case is not None or (outcome == "disagreement" and not given.keep_going):
            break
    print(table(counts, seed=given.seed, seconds=sum(spent.values())))
    return int(any(found["disagreement"] for found in counts.values()))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=sorted(KINDS), help="may be given more than once")
    parser.add_argument("--case", type=int, help="run the case of this number alone")
    parser.add_argument("--start", type=int, default=0, help="the number of the first case")
    parser.add_argument("--spec", help="run the network of this description, as a disagreement prints it")
    parser.add_argument("--keep-going", action="store_true", help="after a disagreement; it is not made smaller then")
    return parser


def _run(case: Case, *, shrink: bool) -> str:
    try:
        return KINDS[case.kind](case.seed, case.number)
    except Disagreement as found:
        print(f"DISAGREEMENT  {case.command()}\n    {found}", flush=True)
        if shrink and case.kind == "networks":
            print(f"    made smaller: {network_run.shrink(case.seed, case.number)}", flush=True)
    except Exception:  # noqa: BLE001  (reported, and counted like any other)
        print(f"DISAGREEMENT  {case.command()}\n{traceback.format_exc()}", flush=True)
    return "disagreement"


def _run_spec(text: str) -> int:
    try:
        print(network_run.run_described(text))
    except Disagreement as found:
        print(found)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
