"""The demo of SRe2L and CDA: a teacher is trained, images are recovered from it, and students learn its answers."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from guard_plugin.demo.hosts import baseline_folder, guarded, run_logged
from guard_plugin.demo.method import DemoMethod
from guard_plugin.demo.settings import RecoverySettings
from guard_plugin.evaluation import RECIPES, RelabelRecipe

__all__ = ["RecoveryDemo"]

_TEACHER = Path("teacher", "checkpoint.pth")
_RECOVERED = "recovered"


class RecoveryDemo(DemoMethod[RecoverySettings]):
    """Our SRe2L and CDA, which differ in how images are recovered."""

    @property
    def adapter(self) -> str:
        """The method."""
        return self.settings.method

    def distil(self, options: Mapping[str, Any], folder: Path) -> Path:
        """Train the teacher under GUARD, and recover images from it."""
        settings = self.settings
        squeeze = str(baseline_folder("sre2l") / "squeeze.py")
        command = [*guarded(self.adapter, settings.penalty, options, folder), squeeze, *self._squeeze(folder)]
        run_logged(command, folder, "squeeze.txt", "training the teacher")
        recover = str(baseline_folder(settings.method) / "recover.py")
        run_logged([sys.executable, recover, *self._recover(folder)], folder, "recover.txt", "recovering images")
        return folder / _RECOVERED

    def evaluation(self, folder: Path) -> dict[str, Any]:
        """Students learn the teacher's answers to new views."""
        settings, published = self.settings, RECIPES["sre2l"]
        assert isinstance(published, RelabelRecipe)  # noqa: S101 - for mypy
        recipe = replace(
            published,
            epochs=settings.student_epochs,
            batch_size=settings.batch_size,
            min_scale=settings.min_scale,
        )
        return {"recipe": recipe, "teacher": folder / _TEACHER, "teacher_arch": settings.arch}

    def _squeeze(self, folder: Path) -> list[str]:
        settings = self.settings
        return [
            f"--dataset={settings.dataset}",
            f"--data-path={settings.data or '.'}",
            f"--model={settings.arch}",
            f"--epochs={settings.teacher_epochs}",
            *([] if settings.n_train is None else [f"--n-train={settings.n_train}"]),
            f"--output-dir={(folder / _TEACHER).parent}",
            f"--seed={settings.seed}",
        ]

    def _recover(self, folder: Path) -> list[str]:
        settings = self.settings
        return [
            f"--arch-path={folder / _TEACHER}",
            f"--syn-data-path={folder}",
            f"--exp-name={_RECOVERED}",
            f"--iteration={settings.iterations}",
            f"--ipc-end={settings.ipc}",
            f"--min-scale-crops={settings.min_scale}",
            f"--seed={settings.seed}",
        ]
