"""``guard demo``."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import click

from guard_plugin.commands.options import Command, any_path, at_least_1, penalty_options
from guard_plugin.demo import METHODS, DemoSettings, run_demo, settings_for
from guard_plugin.errors import UnusableInput
from guard_plugin.plugins import installed_plugins
from guard_plugin.versions import require_torch_to_benchmark

__all__ = ["demo"]


def _setting(name: str, explanation: str, kind: Any = None) -> Callable[..., Any]:
    """Return an option whose default is the one that every demo has."""
    default = getattr(DemoSettings, name)
    return click.option(f"--{name.replace('_', '-')}", type=kind, default=default, show_default=True, help=explanation)


@click.command(cls=Command)
@click.option("--out", type=any_path, default="guard-demo", show_default=True, help="Folder to write.")
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True, help="Baseline to run.")
@_setting("dataset", "digits, or FashionMNIST or CIFAR10.")
@click.option("--data", metavar="DIR", help="Folder of torchvision's data sets; digits needs none.")
@click.option("--arch", help="Network that distils, and the students' network.  [default: by data set]")
@_setting("ipc", "Distilled images per class.", at_least_1)
@click.option("--experiments", type=at_least_1, help="Distilled sets per arm.  [default: by method and data set]")
@click.option("--iterations", type=at_least_1, help="Of the distillation.  [default: by method and data set]")
@click.option("--students", type=at_least_1, help="Students per arm.  [default: by method and data set]")
@_setting("attacks", "Attacks, comma separated.")
@_setting("eps", "Linf radius in pixel space.")
@_setting("n_examples", "Attack the first N test images.", at_least_1)
@_setting("seed", "Seed of the distillation.", click.IntRange(min=0))
@penalty_options
def demo(out: Path, **options: Any) -> None:
    """Distil small real images with a baseline and again under GUARD, attack students of both, and compare.

    Needs no network. Prints what it measures, whatever that is. A penalty that needs more than --strength, --h and
    --form (pgd_at, fast, trades) is one for guard run.
    """
    require_torch_to_benchmark()
    _refuse_penalties_without_options(options["penalty"])
    given = {key: value for key, value in options.items() if value is not None}
    run_demo(settings_for(**given), out, click.echo)


def _refuse_penalties_without_options(name: str | None) -> None:
    penalties = installed_plugins().penalties
    if name is None or name not in penalties:
        return  # the default, or an unknown name, which is refused later with a list of the known ones
    settings = signature(penalties[name].value).parameters.values()
    needed = [s.name for s in settings if s.default is s.empty and s.name not in ("strength", "h", "form")]
    if needed:
        raise UnusableInput(
            f"guard demo cannot run penalty {name!r}: it needs {', '.join(needed)}, for which the demo has no option; "
            f"use guard run --penalty {name}, with --set {needed[0]}=VALUE, and guard benchmark"
        )
