"""What becomes of a large tensor's memory on a CPU when the tensor is gone."""

import functools
import mmap
from pathlib import Path

import torch

__all__ = ["returns_memory"]

# glibc's malloc takes what is above 32 MiB from the system and returns it at once, unless the environment says
# otherwise; jemalloc and tcmalloc keep it for a while.
_LARGE = 40 * 2**20
_PAGES_HELD = Path("/proc/self/statm")


@functools.cache
def returns_memory() -> bool:
    """Tell whether the memory of a tensor of 40 MiB goes back to the system as soon as the tensor is gone.

    Then the next such tensor has a page fault for each page, which can take as long as the arithmetic on it. Where the
    system does not tell (it is not Linux), the answer is no.
    """
    if not _PAGES_HELD.exists():
        return False
    tensor = torch.empty(_LARGE, dtype=torch.uint8).zero_()
    before = _pages_held()
    del tensor
    return before - _pages_held() > _LARGE // mmap.PAGESIZE // 2


def _pages_held() -> int:
    return int(_PAGES_HELD.read_text().split()[1])
