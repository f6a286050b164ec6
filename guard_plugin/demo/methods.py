"""The steps of each method, from real images to a distilled set, and how students learn from that set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from guard_plugin.demo.hosts import baseline_folder, run_guarded, run_logged
from guard_plugin.demo.settings import DcSettings, DemoSettings, RecoverySettings
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import RECIPES, RelabelRecipe

__all__ = ["distil", "student_options"]

_TEACHER = Path("teacher", "checkpoint.pth")
_RECOVERED = "recovered"


def distil(settings: DemoSettings, penalty: Mapping[str, Any], folder: Path) -> Path:
    """Run the baseline's scripts.

    Args:
        settings: What to distil.
        penalty: The options of ``guard run`` by name.
        folder: For every file that the scripts write.

    Returns:
        The distilled file or folder.

    Raises:
        GuardError: If a script failed.
    """
    if isinstance(settings, DcSettings):
        return _match_gradients(settings, penalty, folder)
    if isinstance(settings, RecoverySettings):
        _train_teacher(settings, penalty, folder)
        return _recover(settings, folder)
    raise UnusableInput(f"expected the settings of a method that the demo knows, got {settings}")


def student_options(settings: DemoSettings, folder: Path) -> dict[str, Any]:
    """Return the arguments of ``benchmark_distilled`` that depend on the method.

    After a recovery, students learn the teacher's answers to new views of the recovered images.

    Args:
        settings: What was distilled.
        folder: The folder that ``distil`` was given.
    """
    published = RECIPES["sre2l"]
    if not (isinstance(settings, RecoverySettings) and isinstance(published, RelabelRecipe)):
        return {}
    recipe = replace(
        published, epochs=settings.student_epochs, batch_size=settings.batch_size, min_scale=settings.min_scale
    )
    return {"recipe": recipe, "teacher": folder / _TEACHER, "teacher_arch": settings.arch}


def _match_gradients(settings: DcSettings, penalty: Mapping[str, Any], folder: Path) -> Path:
    command = [
        str(baseline_folder("dc") / "main.py"),
        f"--dataset={settings.dataset}",
        f"--data_path={settings.data or '.'}",
        f"--save_path={folder}",
        f"--model={settings.arch}",
        f"--ipc={settings.ipc}",
        f"--num_exp={settings.experiments}",
        f"--Iteration={settings.iterations - 1}",
        f"--seed={settings.seed}",
        "--num_eval=0",
        "--init=real",
        "--batch_real=100",
        f"--lr_img={settings.lr_img}",
        *(["--outer_loop=5", "--inner_loop=5"] if settings.ipc > 1 else []),
    ]
    run_guarded("dc", penalty, command, folder / "log.txt", "distilling")
    return folder / f"res_DC_{settings.dataset}_{settings.arch}_{settings.ipc}ipc.pt"


def _train_teacher(settings: RecoverySettings, penalty: Mapping[str, Any], folder: Path) -> None:
    command = [
        str(baseline_folder("sre2l") / "squeeze.py"),
        f"--dataset={settings.dataset}",
        f"--data-path={settings.data or '.'}",
        f"--model={settings.arch}",
        f"--epochs={settings.teacher_epochs}",
        *([] if settings.n_train is None else [f"--n-train={settings.n_train}"]),
        f"--output-dir={(folder / _TEACHER).parent}",
        f"--seed={settings.seed}",
    ]
    run_guarded(settings.method, penalty, command, folder / "squeeze.txt", "training the teacher")


def _recover(settings: RecoverySettings, folder: Path) -> Path:
    command = [
        str(baseline_folder(settings.method) / "recover.py"),
        f"--arch-path={folder / _TEACHER}",
        f"--syn-data-path={folder}",
        f"--exp-name={_RECOVERED}",
        f"--iteration={settings.iterations}",
        f"--ipc-end={settings.ipc}",
        f"--min-scale-crops={settings.min_scale}",
        f"--seed={settings.seed}",
    ]
    run_logged(command, folder / "recover.txt", "recovering images")
    return folder / _RECOVERED
