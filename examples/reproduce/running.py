"""Commands that are run once: each leaves what it did beside what it made, so that a killed run goes on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from guard_plugin.files import atomic_file, remove_unfinished
from guard_plugin.hosts.doctor import commit_of

__all__ = ["GUARD", "run_once"]

GUARD = [sys.executable, "-m", "guard_plugin"]


def run_once(arguments: Sequence[str], folder: Path, name: str) -> bool:
    """Run ``guard`` with these arguments in a folder, unless that was done; tell whether it went well.

    Its output goes to ``NAME.log``; when it is done, ``NAME.done.json`` holds the arguments, seconds and versions.
    """
    done, log = folder / f"{name}.done.json", folder / f"{name}.log"
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["arguments"] == list(arguments):
        return True
    print(f"{folder.name}: {name}", flush=True)
    started = time.time()
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run([*GUARD, *arguments], cwd=folder, stdout=output, stderr=output, check=False).returncode
    if code:
        print(f"{folder.name}: {name} ended with code {code}: see {log}", file=sys.stderr)
        return False
    record = {
        "arguments": list(arguments),
        "seconds": round(time.time() - started, 1),
        "commit": commit_of(Path(__file__).resolve().parents[2]),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
    }
    with atomic_file(done) as file:
        file.write(json.dumps(record, indent=2).encode())
    return True
