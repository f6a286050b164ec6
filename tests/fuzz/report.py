"""The counts of a run of the fuzz, as a table in Markdown."""

import datetime
import platform
from collections import Counter
from collections.abc import Mapping

import numpy
import torch

import guard_plugin

__all__ = ["table"]


def table(counts: Mapping[str, Counter[str]], *, seed: int, seconds: float) -> str:
    """Return what a run found, for docs/reliability.md."""
    versions = f"guard-plugin {guard_plugin.__version__}, torch {torch.__version__}, numpy {numpy.__version__}"
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    rows = [f"| {kind} | {outcome} | {n} |" for kind, found in counts.items() for outcome, n in found.most_common()]
    return "\n".join(
        [
            f"{datetime.date.today()}, seed {seed}, {seconds:.0f} s, {versions}, {machine}:",
            "",
            "| kind | outcome | cases |",
            "|---|---|---|",
            *rows,
            f"| all | | {sum(sum(found.values()) for found in counts.values())} |",
        ]
    )
