"""Output, and seeds by purpose."""

from __future__ import annotations

import collections
import time
import zlib

import numpy as np
from tqdm import tqdm


def say(text: str) -> None:
    """Print a line with the time on standard output, without tearing a progress bar that may be on the terminal."""
    tqdm.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}")


class SeedStreams:
    """Seeds by purpose: the n-th one for a purpose depends on the run's seed, the purpose and n, and on nothing else.

    So the evaluations, for instance, can be left out without changing what is distilled.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: collections.Counter[str] = collections.Counter()

    def next(self, purpose: str) -> int:
        entropy = [self._seed, zlib.crc32(purpose.encode()), self._drawn[purpose]]
        self._drawn[purpose] += 1
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])
