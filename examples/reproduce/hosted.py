"""The small scale by the hosts' own, unmodified scripts: do they point the same way as our baselines?

SRe2L's and CDA's ResNet-18 has 145 times the operations of ConvNetW32, on 32x32 pixels (by torch's FlopCounterMode).
Their scripts for Tiny-ImageNet take any model of torchvision's by name, so that a small one can be registered there.
They have 200 classes written into them: one image per class is 200 images, of any data in Tiny-ImageNet's layout.
"""

from __future__ import annotations

import math
from dataclasses import replace

from examples.reproduce.cells import Cell
from examples.reproduce.paper import RECOVERY_OF_TINY
from examples.reproduce.running import SMALL_TEACHER, WANDB_NAME
from examples.reproduce.small import MATCHED, STUDENT_RATE, Distillation, Scale, Step, step

__all__ = ["distillation"]

_STUDENT = "ConvNetBN16-32"
"""The students of SRe2L and CDA, as those of our baselines."""

_TESLAS = "ConvNetD1"
"""The least of TESLA's networks: all are 128 wide."""

_UPDATES = {1: 1, 10: 10}
"""DC's updates of the images per iteration, by images per class: its ``get_loops``."""


def distillation(cell: Cell, scale: Scale) -> Distillation:
    """Return how a cell is distilled by its method's host; the scripts take no seed, so that runs differ by chance.

    Raises:
        ValueError: If no host of the method can be run at this scale.
    """
    makers = {"dc": _gradients, "sre2l": _recovered, "cda": _recovered}
    return makers.get(cell.method, _trajectories)(cell, scale)


def _step(cell: Cell, name: str, script: str, *arguments: object) -> Step:
    return step(cell, f"host-{name}", f"{{hosts}}/{script}", *arguments, options=["--repair"])


def _recovered(cell: Cell, scale: Scale) -> Distillation:
    """SRe2L and CDA share a teacher; both recover as CDA's README says, whose larger steps do with fewer iterations."""
    if cell.dataset != "TinyImageNet" or cell.arm.parts:
        raise ValueError(f"expected --dataset TinyImageNet, and an arm with one teacher: {cell.group}")
    train = ("--model", SMALL_TEACHER, "--device", "cpu", "--workers", 0, "--batch-size", 32, "--output-dir", "teacher")
    rate = ("--epochs", scale.teacher_epochs, "--lr", 0.05, "--lr-scheduler", "cosineannealinglr")
    squeeze = _step(replace(cell, method="sre2l"), "squeeze", "tiny-imagenet/classification/train.py", *train, *rate)
    squeeze = replace(squeeze, reads_data=True)
    teacher = f"{squeeze.folder}/teacher/checkpoint.pth"
    images = ("--arch-name", SMALL_TEACHER, "--arch-path", f"../{teacher}", "--iteration", scale.recover)
    folder = ("--batch-size", 200, "--ipc-end", cell.ipc, "--syn-data-path", ".", "--exp-name", "recovered")
    script, options = RECOVERY_OF_TINY[cell.method]
    steps = ("--lr", 0.4, "--r-bn", 0.05)  # the last ones count
    recover = _step(cell, f"ipc{cell.ipc}", script, *images, *folder, *options.split(), *steps)
    networks = ("--num-classes", "200", "--arch", _STUDENT, "--teacher-arch", f"{SMALL_TEACHER}-3x3")
    # Of the recipes, the one that small sets need: with that of train_kd.py, 200 images teach these students nothing.
    students = ("--recipe", "sre2l", "--epochs", str(scale.student_epochs // 2))
    return Distillation(
        [squeeze, recover],
        distilled=f"{recover.folder}/recovered",
        files={"--teacher": teacher},
        options=(*networks, *students, "--set", f"batch_size={scale.student_batch}"),
    )


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
