"""The demo of DC: gradient matching."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard_plugin.demo.hosts import baseline_folder, guarded, run_logged
from guard_plugin.demo.method import DemoMethod
from guard_plugin.demo.settings import DcSettings

__all__ = ["DcDemo"]


class DcDemo(DemoMethod[DcSettings]):
    """Our DC, whose one script distils."""

    adapter = "dc"

    def distil(self, options: Mapping[str, Any], folder: Path) -> Path:
        """Match gradients."""
        settings = self.settings
        script = str(baseline_folder(self.adapter) / "main.py")
        command = [*guarded(self.adapter, settings.penalty, options, folder), script, *self._arguments(folder)]
        run_logged(command, folder, "log.txt", "distilling")
        return folder / f"res_DC_{settings.dataset}_{settings.arch}_{settings.ipc}ipc.pt"

    def _arguments(self, folder: Path) -> list[str]:
        settings = self.settings
        return [
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
