"""Rounds of steps, each method once in each, appended to the case's file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from examples.overhead.case import Case
from examples.overhead.contenders import Apart, Contender
from examples.overhead.methods import PLAIN, methods
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.results import versions

__all__ = ["measure"]


def measure(case: Case, device: torch.device, rounds: int, file: Path, only: Sequence[str] | None = None) -> None:
    """Append what is missing of the rounds to a file, after its first line, which tells all that has no spread."""
    torch.set_num_threads(1)  # until all processes are forked: OpenMP's threads would not be in them
    contenders = _contenders(case, device, only)
    names = list(contenders)
    torch.set_num_threads(case.threads)
    try:
        done = _begun(case, device, contenders, file)
        if done < rounds:
            for contender in contenders.values():
                contender.ask("seconds", 1, case.clock)
        for number in tqdm(range(done, rounds), case.name, disable=None):
            order = names[number % len(names) :] + names[: number % len(names)]
            seconds = {name: contenders[name].ask("seconds", case.steps, case.clock) for name in order}
            _append(file, {"round": number, "seconds": seconds})
        for name, contender in contenders.items():
            if not contender.ask("is_finite"):
                raise ArithmeticError(f"{name}: the weights are no longer finite, so its times mean nothing")
    finally:
        for contender in contenders.values():
            contender.close()


def _contenders(case: Case, device: torch.device, only: Sequence[str] | None) -> dict[str, Apart]:
    network, batch = case.build(device)
    known = methods(tuple(batch[0].shape[1:]))
    names = [PLAIN, *(only or [name for name in known if name != PLAIN])]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnusableInput(f"expected --only to be one of {'; '.join(known)}, got {'; '.join(unknown)}")
    return {name: Apart(Contender(network, known[name], batch), case.threads) for name in names}


def _begun(case: Case, device: torch.device, contenders: Mapping[str, Apart], file: Path) -> int:
    """Write the first line, or check that it is of the same measurement; return how many rounds are there."""
    allocator = {name: value for name, value in os.environ.items() if name.startswith(("MALLOC_", "THP_MEM", "LD_PRE"))}
    used = {**versions(device), "machine": platform.machine(), "system": platform.system(), "allocator": allocator}
    settings = {"case": vars(case), "methods": list(contenders), "versions": used}
    if file.exists():
        first, *others = file.read_text().splitlines()
        found = {name: json.loads(first)[name] for name in settings}
        if found != settings:
            raise UnusableInput(
                f"{file} holds another measurement: {found}; this one: {settings}. Choose another --out"
            )
        return len(others)
    fixed = {
        "passes": {name: one.ask("passes") for name, one in contenders.items()},
        "peak_bytes": {name: one.ask("peak_bytes") for name, one in contenders.items()},
    }
    _append(file, {**settings, **fixed})
    return 0


def _append(file: Path, line: Mapping[str, Any]) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
