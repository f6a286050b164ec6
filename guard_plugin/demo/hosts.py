"""Running our own baselines, each in a process of its own, as their users would."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guard_plugin.errors import GuardError, UnusableInput

__all__ = ["LEDGER", "baseline_folder", "run_guarded", "run_logged"]

LEDGER = "ledger.json"


def baseline_folder(name: str) -> Path:
    """Return the folder of one of our baselines: in the checkout, or as it travels in the wheel.

    Raises:
        UnusableInput: If neither holds it.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package.parent / "examples" / "baselines" / name, package / "_baselines" / name)
    for place in places:
        if any(place.glob("*.py")):
            return place
    raise UnusableInput(f"expected the baseline {name} in {' or '.join(map(str, places))}, found none: reinstall")


def run_guarded(adapter: str, penalty: Mapping[str, Any], command: Sequence[str], log: Path, doing: str) -> None:
    """Run a script under ``guard run``, with the ledger beside the log.

    Args:
        adapter: The name of the script's adapter.
        penalty: The options of ``guard run`` by name: "penalty", and the penalty's settings.
        command: The script and its arguments.
        log: The file for the script's output.
        doing: What the script does: "distilling".

    Raises:
        GuardError: If the script fails.
    """
    options = [f"--{key}={value}" for key, value in penalty.items()]
    guard = ["-m", "guard_plugin", "run", "--ledger", str(log.with_name(LEDGER)), *options, adapter]
    run_logged([*guard, *command], log, doing)


def run_logged(command: Sequence[str], log: Path, doing: str) -> None:
    """Run a script with this Python, with its output in a file.

    Args:
        command: The script and its arguments.
        log: The file for the script's output.
        doing: What the script does: "recovering images".

    Raises:
        GuardError: If the script fails.
    """
    with log.open("w", encoding="utf-8") as opened:
        # The script's own progress bar, on stderr, is the user's to see.
        done = subprocess.run([sys.executable, *command], stdout=opened, check=False)
    if done.returncode != 0:
        raise GuardError(
            f"{doing} failed with exit code {done.returncode}; its messages are above, its output is in {log}"
        )
