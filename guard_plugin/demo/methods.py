"""The steps of each method: our baseline's scripts, from real images to a distilled set, and how students learn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guard_plugin.demo.settings import DcSettings, RecoverySettings
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.evaluation import RECIPES, RelabelRecipe

__all__ = ["LEDGER", "baseline_folder", "distil", "student_options"]

LEDGER = "ledger.json"
_TEACHER = Path("teacher", "checkpoint.pth")
_RECOVERED = "recovered"


def distil(settings: DcSettings | RecoverySettings, penalty: Mapping[str, Any], folder: Path) -> list[Path]:
    """Run the baseline's scripts, which write into the folder, and return the distilled files or folders in it.

    Beside each lies the ledger of the run that made it.

    Raises:
        GuardError: If a script failed.
    """
    if isinstance(settings, DcSettings):
        return [_match_gradients(settings, penalty, folder)]
    distilled = []
    for number in range(settings.experiments):
        own = folder / f"set-{number}"
        own.mkdir(exist_ok=True)
        seeded = replace(settings, seed=settings.seed + number)
        _train_teacher(seeded, penalty, own)
        distilled.append(_recover(seeded, own))
    return distilled


def student_options(settings: DcSettings | RecoverySettings, distilled: Sequence[Path]) -> dict[str, Any]:
    """Return the arguments of ``benchmark_distilled`` that depend on the method, for what was distilled.

    After a recovery, students learn the teacher's answers to new views of the recovered images.
    """
    published = RECIPES["sre2l"]
    if not (isinstance(settings, RecoverySettings) and isinstance(published, RelabelRecipe)):
        return {}
    recipe = replace(
        published, epochs=settings.student_epochs, batch_size=settings.batch_size, min_scale=settings.min_scale
    )
    teachers = [path.parent / _TEACHER for path in distilled]
    return {"recipe": recipe, "teacher": teachers, "teacher_arch": settings.arch}


def _match_gradients(settings: DcSettings, penalty: Mapping[str, Any], folder: Path) -> Path:
    command = [
        *_guarded("dc", penalty, folder),
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
    _run_logged(command, folder / "log.txt", "distilling")
    return folder / f"res_DC_{settings.dataset}_{settings.arch}_{settings.ipc}ipc.pt"


def _train_teacher(settings: RecoverySettings, penalty: Mapping[str, Any], folder: Path) -> None:
    command = [
        *_guarded(settings.method, penalty, folder),
        str(baseline_folder("sre2l") / "squeeze.py"),
        f"--dataset={settings.dataset}",
        f"--data-path={settings.data or '.'}",
        f"--model={settings.arch}",
        f"--epochs={settings.teacher_epochs}",
        *([] if settings.n_train is None else [f"--n-train={settings.n_train}"]),
        f"--output-dir={(folder / _TEACHER).parent}",
        f"--seed={settings.seed}",
    ]
    _run_logged(command, folder / "squeeze.txt", "training the teacher")


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
    _run_logged(command, folder / "recover.txt", "recovering images")
    return folder / _RECOVERED


def baseline_folder(name: str) -> Path:
    """Return the folder of one of our baselines: in the checkout, or as it travels in the wheel.

    Raises:
        UnusableInput: If neither holds it.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package.parent / "examples" / "baselines" / name, package / "_baselines" / name)
    for place in places:
        if any(place.glob("*.py")):
            return place
    raise UnusableInput(f"expected the baseline {name} in {' or '.join(map(str, places))}, found none: reinstall")


def _guarded(adapter: str, penalty: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the words before a script that make Python run it under ``guard run``, with the ledger in the folder."""
    options = [f"--{key}={value}" for key, value in penalty.items()]
    return ["-m", "guard_plugin", "run", "--ledger", str(folder / LEDGER), *options, adapter]


def _run_logged(arguments: Sequence[str], log: Path, doing: str) -> None:
    """Run Python with these arguments in a process of its own, with its output in a file; a failure says ``doing``."""
    with log.open("w", encoding="utf-8") as opened:
        # The script's own progress bar, on stderr, is the user's to see.
        done = subprocess.run([sys.executable, *arguments], stdout=opened, check=False)
    if done.returncode != 0:
        raise GuardError(
            f"{doing} failed with exit code {done.returncode}; its messages are above, its output is in {log}"
        )
