"""What does the tap cost DC's steps, at strength 0? On and off in turn within one run of its unmodified main.py.

    python examples/strength_zero_steps.py HOST/main.py ARGS...

A step is all that main.py does for one class, from one call of its match_loss to the next. In one process neither the
heap's layout nor start-up stands between the two; whole runs are measured by strength_zero.py.
"""

from __future__ import annotations

import random
import runpy
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guard_plugin.injection.calls.loss_call import LossCall
from guard_plugin.injection.calls.tap import Tap

FIRST = 2  # steps that are not counted, of each kind
DRAWS = 4000


def main() -> None:
    """Run the script, and print."""
    script, *arguments = sys.argv[1:]
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(script).resolve().parent))
    import utils  # the host's

    turns = Turns(utils.match_loss)
    utils.match_loss = turns.match_loss
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    pairs = zip(turns.seconds[True][FIRST:], turns.seconds[False][FIRST:])
    ratios = [on / off for on, off in pairs]
    drawn = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    low, high = drawn[DRAWS // 40], drawn[-DRAWS // 40]
    print(
        f"{len(ratios)} pairs of steps, {turns.seen} loss calls seen: CPU time with the tap over without, median "
        f"{statistics.median(ratios):.4f}, 95 % interval [{low:.4f}, {high:.4f}]"
    )


class Turns:
    """The host's match_loss, with the tap on and off in turn between its calls."""

    def __init__(self, match_loss: Any) -> None:
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self.seen = 0
        self._match_loss = match_loss
        self._tap: Tap | None = None
        self._begin: float | None = None

    def match_loss(self, *args: Any) -> Any:
        """End a step, and begin the next."""
        matched = self._match_loss(*args)
        if self._begin is not None:
            self.seconds[self._tap is not None].append(time.process_time() - self._begin)
        if self._tap is None:
            self._tap = Tap(self._see)
        else:
            self._tap.remove()
            self._tap = None
        self._begin = time.process_time()
        return matched

    def _see(self, call: LossCall) -> Tensor:
        self.seen += 1
        return call.loss


if __name__ == "__main__":
    main()
