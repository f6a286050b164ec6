"""Commands that are run once: each leaves what it did beside what it made, so that a killed run goes on.

What a command did is written with ``{data}``, ``{hosts}`` and ``{baselines}`` for these folders, so that the record is
the same on every machine: committed, it says that the work is done.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from guard_plugin.files import remove_unfinished, write_json
from guard_plugin.hosts.work_tree import commit_of

__all__ = ["GUARD", "SMALL_TEACHER", "WANDB_NAME", "is_of_hosts", "record_of", "run_once"]

WANDB_NAME = "run"
"""What wandb calls a run, after which MTT and TESLA name their folders."""

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
    "WANDB_NAME": WANDB_NAME,
    "WANDB_API_KEY": "0" * 40,  # some hosts ask for one even so
}

_EXAMPLES = Path(__file__).resolve().parents[1]

GUARD = [sys.executable, "-m", "guard_plugin"]
SMALL_TEACHER = "small_teacher"
"""The network of small_teacher.py; commands that name it get it registered."""
_WITH_SMALL_TEACHER = [
    *(sys.executable, "-c"),
    f"import runpy, sys; sys.path.insert(0, {str(_EXAMPLES.parent)!r}); import examples.reproduce.small_teacher; "
    "del sys.path[0]; runpy.run_module('guard_plugin', run_name='__main__', alter_sys=True)",
]


def record_of(folder: Path, name: str) -> dict[str, Any]:
    """Return the record of a command that was done in a folder; empty if it was not."""
    file = folder / f"{name}.done.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def is_of_hosts(protocol: Path) -> bool:
    """Tell whether a protocol's folder is of sets that hosts' scripts distilled; they take no seed, to pair sets by."""
    return protocol.name.startswith("hosts-")


def run_once(
    arguments: Sequence[str], folder: Path, name: str, places: Mapping[str, Path] = MappingProxyType({})
) -> bool:
    """Run ``guard`` with these arguments in a folder, unless that was done; tell whether it went well.

    Its output goes to ``NAME.log``; when it is done, ``NAME.done.json`` holds the arguments, seconds and versions.

    Args:
        arguments: The arguments; ``{baselines}`` and the names of ``places`` in braces stand for folders.
        folder: Where it runs.
        name: The name of the command there.
        places: Folders by name: "data", "hosts".
    """
    if record_of(folder, name).get("arguments") == list(arguments):
        return True
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    print(f"{folder.name}: {name}", flush=True)
    started, log = time.time(), folder / f"{name}.log"
    places = {"baselines": _EXAMPLES / "baselines", **places}
    environment = {**_ENVIRONMENT, **os.environ}
    guard = _WITH_SMALL_TEACHER if any(SMALL_TEACHER in argument for argument in arguments) else GUARD
    command = [*guard, *(_placed(argument, places) for argument in arguments)]
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=folder, stdout=output, stderr=output, check=False, env=environment)
    if done.returncode:
        print(f"{folder.name}: {name} ended with code {done.returncode}: see {log}", file=sys.stderr)
        return False
    record = {
        "arguments": list(arguments),
        "seconds": round(time.time() - started, 1),
        "commit": commit_of(_EXAMPLES.parent),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "threads": environment["OMP_NUM_THREADS"],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    write_json(folder / f"{name}.done.json", record)
    return True


def _placed(argument: str, places: Mapping[str, Path]) -> str:
    for name, place in places.items():
        argument = argument.replace(f"{{{name}}}", str(place))
    return argument
