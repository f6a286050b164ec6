"""Which of the processes that torchrun started reports for all."""

import os

__all__ = ["is_main_process", "is_one_of_several"]


def is_main_process() -> bool:
    """Tell whether this process is the one that reports and writes files: rank 0, or the only one.

    Each process guards, counts and verifies its own loss calls.
    """
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Tell whether torchrun started other processes of this run, too."""
    return os.environ.get("WORLD_SIZE", "1") != "1"
