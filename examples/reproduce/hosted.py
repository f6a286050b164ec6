"""The small scale by the hosts' own, unmodified scripts: do they point the same way as our baselines?

SRe2L and CDA are missing. Their published scripts have ResNet-18 and 100, 200 or 1,000 classes written into them: on
32x32 pixels, a teacher of 145 times the operations of ConvNetW32 (by torch's FlopCounterMode).
"""

from __future__ import annotations

import math

from examples.reproduce.cells import Cell
from examples.reproduce.running import WANDB_NAME
from examples.reproduce.small import MATCHED, STUDENT_RATE, Distillation, Scale, Step, step

__all__ = ["distillation"]

_TESLAS = "ConvNetD1"
"""The least of TESLA's networks: all are 128 wide."""

_UPDATES = {1: 1, 10: 10}
"""DC's updates of the images per iteration, by images per class: its ``get_loops``."""


def distillation(cell: Cell, scale: Scale) -> Distillation:
    """Return how a cell is distilled by its method's host; the scripts take no seed, so that runs differ by chance.

    Raises:
        ValueError: If no host of the method can be run at this scale.
    """
    makers = {"dc": _gradients, "mtt": _trajectories, "tesla": _trajectories}
    if cell.method not in makers:
        raise ValueError(f"expected a method whose host a CPU can run ({', '.join(makers)}), got {cell.method}")
    return makers[cell.method](cell, scale)


def _step(cell: Cell, name: str, script: str, *arguments: object) -> Step:
    return step(cell, f"host-{name}", f"{{hosts}}/{script}", *arguments, options=["--repair"])


def _gradients(cell: Cell, scale: Scale) -> Distillation:
    iterations = math.ceil(scale.match / _UPDATES[cell.ipc])
    arguments = (
        *("--dataset", cell.dataset, "--data_path", "{data}", "--save_path", ".", "--model", MATCHED),
        *("--ipc", cell.ipc, "--num_exp", 1, "--num_eval", 0, "--init", "real", "--batch_real", 64),
        *("--Iteration", iterations - 1, "--lr_img", 1),
    )
    distill = _step(cell, f"ipc{cell.ipc}", "DatasetCondensation/main.py", *arguments)
    return Distillation([distill], f"{distill.folder}/res_DC_{cell.dataset}_{MATCHED}_{cell.ipc}ipc.pt")


def _trajectories(cell: Cell, scale: Scale) -> Distillation:
    """Each host trains a buffer of its own, and keeps the images of its better evaluation: of the first or the last.

    MTT's evaluation ends with an error without DSA, which our baselines leave out.
    """
    clone, network = {"mtt": ("mtt-distillation", MATCHED), "tesla": ("tesla", _TESLAS)}[cell.method]
    data = ("--dataset", cell.dataset, "--data_path", "{data}", "--model", network)
    train = ("--num_experts", 1, "--save_interval", 1, "--train_epochs", scale.expert_epochs)
    to = ("--lr_teacher", STUDENT_RATE, "--buffer_path", "buffers")
    buffer = _step(cell, "buffer", f"{clone}/buffer.py", *data, *train, *to)
    follow = (
        *("--buffer_path", f"../{buffer.folder}/buffers", "--ipc", cell.ipc, "--Iteration", scale.follow),
        *("--eval_it", scale.follow, "--num_eval", 1, "--epoch_eval_train", scale.student_epochs),
        *("--max_start_epoch", max(1, scale.expert_epochs - 2), "--lr_teacher", STUDENT_RATE, "--lr_lr", "1e-7"),
    )
    distill = _step(cell, f"ipc{cell.ipc}", f"{clone}/distill.py", *data, *follow)
    students = ("--learning-rate", STUDENT_RATE, "--epochs", str(scale.student_epochs))
    return Distillation(
        [buffer, distill], f"{distill.folder}/logged_files/{cell.dataset}/{WANDB_NAME}", options=students
    )
