"""The small scale: our own baselines of the five methods, on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from examples.reproduce.cells import Cell, fingerprint

__all__ = ["MATCHED", "STUDENT_RATE", "Distillation", "Scale", "Step", "distillation", "step"]

MATCHED = "ConvNetW32"
"""The network whose gradients or trajectories are matched; the hosts have it too."""

STUDENT_RATE = "0.05"
"""The learning rate of experts, and of the students of images that match trajectories."""

_SQUEEZED = "ConvNetBN16-32"


@dataclass(frozen=True)
class Scale:
    """How much work a cell is.

    Args:
        n_train: Images that a teacher is trained on.
        teacher_epochs: Its epochs.
        recover: Updates of recovered images.
        match: Updates of images that match gradients.
        n_expert: Images that an expert, whose trajectory is matched, is trained on.
        expert_epochs: Its epochs.
        follow: Updates of images that match trajectories.
        student_epochs: Epochs of students of images that match trajectories; the others' are their host's.
        student_batch: Recovered images in a step of a student; the host's 128 are more than ten per class come to.
    """

    n_train: int = 4000
    teacher_epochs: int = 6
    recover: int = 100
    match: int = 60
    n_expert: int = 10000
    expert_epochs: int = 6
    follow: int = 40
    student_epochs: int = 300
    student_batch: int = 20


@dataclass(frozen=True)
class Step:
    """A command, in a folder that is named by what it does: cells that share a teacher or a buffer share its folder.

    Args:
        name: What the step is.
        arguments: Arguments of ``guard``, with ``{data}``, ``{baselines}`` and ``{hosts}`` for folders.
        reads_data: Whether its script takes no folder of data, and reads ./data.
    """

    name: str
    arguments: list[str]
    reads_data: bool = False

    @property
    def folder(self) -> str:
        """The name of its folder, beside which those of the other steps are."""
        return f"{self.name}-{fingerprint(self.arguments)}"


@dataclass(frozen=True)
class Distillation:
    """How a cell is distilled: steps in order, and what they leave.

    Args:
        steps: The steps.
        distilled: The distilled set, from the folder of the steps' folders.
        files: Options of ``guard benchmark`` that name a file of each cell, from there.
        options: Further options of it.
    """

    steps: Sequence[Step]
    distilled: str
    files: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def distillation(cell: Cell, scale: Scale) -> Distillation:
    """Return how a cell is distilled.

    Raises:
        ValueError: If the arm has parts, and the method recovers no images.
    """
    if cell.arm.parts and cell.method not in ("sre2l", "cda"):
        raise ValueError(f"expected sre2l or cda for arm {cell.arm.name}, which labels recovered images: {cell.method}")
    make = {"sre2l": _recovered, "cda": _recovered, "dc": _gradients}.get(cell.method, _trajectories)
    return make(cell, scale)


def step(cell: Cell, name: str, script: str, *arguments: object, options: Sequence[str] = ()) -> Step:
    """Return the step that runs a script under the penalty of a cell, with further ``options`` of ``guard run``."""
    run = ["run", *options, *cell.arm.options, "--ledger", "ledger.json", cell.method, script]
    return Step(f"{cell.dataset}-{cell.method}-{name}-{cell.arm.name}-{cell.seed}", [*run, *map(str, arguments)])


def _squeeze(cell: Cell, scale: Scale) -> tuple[Step, str]:
    """Return the step that trains a teacher, and the teacher's file."""
    n_train, epochs = scale.n_train, scale.teacher_epochs
    if cell.dataset == "digits":  # it has no more images, and a teacher needs as many steps
        n_train, epochs = min(n_train, 800), max(epochs, 20)
    train = ("--dataset", cell.dataset, "--data-path", "{data}", "--model", _SQUEEZED, "--n-train", n_train)
    to = ("--epochs", epochs, "--output-dir", "teacher", "--seed", cell.seed)
    squeeze = step(cell, "squeeze", "{baselines}/sre2l/squeeze.py", *train, *to)
    return squeeze, f"{squeeze.folder}/teacher/checkpoint.pth"


def _recovered(cell: Cell, scale: Scale) -> Distillation:
    source, labeller = (replace(cell, arm=arm) for arm in cell.arm.parts or (cell.arm, cell.arm))
    squeeze, teacher = _squeeze(source, scale)
    labelling, labels = _squeeze(labeller, scale)
    images = ("--arch-path", f"../{teacher}", "--iteration", scale.recover, "--ipc-end", cell.ipc)
    folder = ("--syn-data-path", ".", "--exp-name", "recovered", "--seed", cell.seed)
    recover = step(source, f"ipc{cell.ipc}", f"{{baselines}}/{cell.method}/recover.py", *images, *folder)
    return Distillation(
        [squeeze, recover] if labelling == squeeze else [squeeze, labelling, recover],
        distilled=f"{recover.folder}/recovered",
        files={"--teacher": labels},
        options=("--set", f"batch_size={scale.student_batch}"),
    )


def _gradients(cell: Cell, scale: Scale) -> Distillation:
    updates, loops = (5, ("--outer_loop", 5, "--inner_loop", 5)) if cell.ipc > 1 else (1, ())
    arguments = (
        *("--dataset", cell.dataset, "--data_path", "{data}", "--save_path", ".", "--model", MATCHED),
        *("--ipc", cell.ipc, "--num_exp", 1, "--num_eval", 0, "--init", "real", "--batch_real", 64),
        *("--seed", cell.seed, "--Iteration", math.ceil(scale.match / updates) - 1, "--lr_img", 1, *loops),
    )
    distill = step(cell, f"ipc{cell.ipc}", "{baselines}/dc/main.py", *arguments)
    return Distillation([distill], f"{distill.folder}/res_DC_{cell.dataset}_{MATCHED}_{cell.ipc}ipc.pt")


def _trajectories(cell: Cell, scale: Scale) -> Distillation:
    data = ("--dataset", cell.dataset, "--data_path", "{data}", "--model", MATCHED, "--dsa", "False")
    epochs = scale.expert_epochs
    train = ("--num_experts", 1, "--save_interval", 1, "--train_epochs", epochs, "--n_train", scale.n_expert)
    to = ("--lr_teacher", STUDENT_RATE, "--buffer_path", "buffers", "--seed", cell.seed)
    # TESLA's distill.py reads MTT's buffers: one serves both.
    buffer = step(replace(cell, method="mtt"), "buffer", "{baselines}/mtt/buffer.py", *data, *train, *to)
    follow = (
        *("--buffer_path", f"../{buffer.folder}/buffers", "--seed", cell.seed, "--ipc", cell.ipc),
        *("--Iteration", scale.follow, "--eval_it", 0, "--save_path", ".", "--run_name", "run"),
        *("--max_start_epoch", max(1, epochs - 2), "--lr_teacher", STUDENT_RATE, "--lr_lr", "1e-7"),
        *("--lr_img", 1000),  # the hosts' default; with our baselines' 30, the images hardly move in so few updates
    )
    distill = step(cell, f"ipc{cell.ipc}", f"{{baselines}}/{cell.method}/distill.py", *data, *follow)
    students = ("--learning-rate", STUDENT_RATE, "--epochs", str(scale.student_epochs))
    return Distillation([buffer, distill], distilled=f"{distill.folder}/{cell.dataset}/run", options=students)
