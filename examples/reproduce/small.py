"""The small scale: our own baselines of the five methods, on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from examples.reproduce.cells import Cell

__all__ = ["Distillation", "Scale", "distillation"]

_BASELINES = Path(__file__).resolve().parents[1] / "baselines"
_SQUEEZED = "ConvNetBN16-32"
_MATCHED = "ConvNetD2"


@dataclass(frozen=True)
class Scale:
    """How much work a cell is.

    Args:
        n_train: Images that a teacher is trained on.
        teacher_epochs: Its epochs.
        recover: Updates of recovered images.
        match: Updates of images that match gradients or trajectories.
        experts: Networks whose trajectories are matched.
        expert_epochs: Their epochs.
        student_epochs: Epochs of students of recovered images; the others' are their host's.
    """

    n_train: int = 4000
    teacher_epochs: int = 6
    recover: int = 100
    match: int = 60
    experts: int = 4
    expert_epochs: int = 6
    student_epochs: int = 60


@dataclass(frozen=True)
class Distillation:
    """How a cell is distilled: commands that run in its folder, and what they leave there.

    Args:
        commands: Arguments of ``guard``, in order.
        distilled: The distilled set.
        files: Options of ``guard benchmark`` that name a file of each cell.
        options: Further options of it.
    """

    commands: list[list[str]]
    distilled: str
    files: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def distillation(cell: Cell, data: Path, scale: Scale) -> Distillation:
    """Return how a cell is distilled from the data sets in a folder."""
    make = {"sre2l": _recovered, "cda": _recovered, "dc": _gradients}.get(cell.method, _trajectories)
    return make(cell, data, scale)


def _run(cell: Cell, script: Path, *arguments: object) -> list[str]:
    return ["run", *cell.arm.options, "--ledger", f"{script.stem}.json", cell.method, str(script), *map(str, arguments)]


def _recovered(cell: Cell, data: Path, scale: Scale) -> Distillation:
    seed = ("--seed", cell.seed)
    n_train = min(scale.n_train, 800) if cell.dataset == "digits" else scale.n_train  # it has no more
    train = ("--dataset", cell.dataset, "--data-path", data, "--model", _SQUEEZED, "--n-train", n_train)
    squeeze = (*train, "--epochs", scale.teacher_epochs, "--output-dir", "teacher", *seed)
    teacher = "teacher/checkpoint.pth"
    recover = ("--arch-path", teacher, "--iteration", scale.recover, "--ipc-end", cell.ipc)
    folder = ("--syn-data-path", ".", "--exp-name", "recovered")
    return Distillation(
        [
            _run(cell, _BASELINES / "sre2l" / "squeeze.py", *squeeze),
            _run(cell, _BASELINES / cell.method / "recover.py", *recover, *folder, *seed),
        ],
        distilled="recovered",
        files={"--teacher": teacher},
        options=("--epochs", str(scale.student_epochs)),
    )


def _gradients(cell: Cell, data: Path, scale: Scale) -> Distillation:
    loops = ("--outer_loop", 5, "--inner_loop", 5) if cell.ipc > 1 else ()
    arguments = (
        *("--dataset", cell.dataset, "--data_path", data, "--save_path", ".", "--model", _MATCHED, "--ipc", cell.ipc),
        *("--num_exp", 1, "--num_eval", 0, "--init", "real", "--batch_real", 64, "--seed", cell.seed),
        *("--Iteration", scale.match - 1, *loops),
    )
    script = _BASELINES / "dc" / "main.py"
    return Distillation([_run(cell, script, *arguments)], f"res_DC_{cell.dataset}_{_MATCHED}_{cell.ipc}ipc.pt")


def _trajectories(cell: Cell, data: Path, scale: Scale) -> Distillation:
    folder = _BASELINES / cell.method
    common = (
        *("--dataset", cell.dataset, "--data_path", data, "--model", _MATCHED, "--buffer_path", "buffers"),
        *("--dsa", "False", "--seed", cell.seed),
    )
    buffer = ("--num_experts", scale.experts, "--train_epochs", scale.expert_epochs, "--save_interval", scale.experts)
    distill = (
        *("--ipc", cell.ipc, "--Iteration", scale.match, "--eval_it", 0, "--save_path", ".", "--run_name", "run"),
        *("--max_start_epoch", max(1, scale.expert_epochs - 3), "--lr_lr", "1e-7"),
    )
    return Distillation(
        [_run(cell, folder / "buffer.py", *common, *buffer), _run(cell, folder / "distill.py", *common, *distill)],
        distilled=f"{cell.dataset}/run",
    )
