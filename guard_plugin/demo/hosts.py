"""Our own baselines, run as their users would."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guard_plugin.errors import GuardError, UnusableInput

__all__ = ["LEDGER", "baseline_folder", "guarded", "run_logged"]

LEDGER = "ledger.json"


def baseline_folder(name: str) -> Path:
    """Return the folder of a baseline of ours: in the checkout, or as it travels in the wheel."""
    package = Path(__file__).resolve().parents[1]
    places = (package.parent / "examples" / "baselines" / name, package / "_baselines" / name)
    for place in places:
        if any(place.glob("*.py")):
            return place
    raise UnusableInput(f"expected the baseline {name} in {' or '.join(map(str, places))}, found none: reinstall")


def guarded(adapter: str, penalty: str, options: Mapping[str, Any], folder: Path) -> list[str]:
    """The command that runs the script that follows it under ``guard run``, with the ledger in the folder."""
    guard = [sys.executable, "-m", "guard_plugin", "run", "--ledger", str(folder / LEDGER)]
    return [*guard, f"--penalty={penalty}", *(f"--{key}={value}" for key, value in options.items()), adapter]


def run_logged(command: Sequence[str], folder: Path, name: str, what: str) -> None:
    """Run a command in a process of its own, one host per process, with its output in a file.

    Args:
        command: The program and its arguments.
        folder: Where the file goes.
        name: The file's name.
        what: What it does: "distilling".

    Raises:
        GuardError: If it fails.
    """
    with (folder / name).open("w", encoding="utf-8") as log:
        # The script's own progress bar, on stderr, is the user's to see.
        done = subprocess.run(command, stdout=log, check=False)
    if done.returncode != 0:
        raise GuardError(
            f"{what} failed with exit code {done.returncode}; its messages are above, its output is in {folder / name}"
        )
