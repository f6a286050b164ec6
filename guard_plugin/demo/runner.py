"""Both arms of the demo, and what is printed of them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guard_plugin.demo.dc import DcDemo
from guard_plugin.demo.hosts import LEDGER
from guard_plugin.demo.method import DemoMethod
from guard_plugin.demo.recovery import RecoveryDemo
from guard_plugin.demo.settings import DcSettings, DemoSettings, RecoverySettings
from guard_plugin.distilled import DistilledSet, read_distilled, subject_of
from guard_plugin.drawing import draw
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import (
    FinishedBenchmark,
    benchmark_distilled,
    comparison,
    comparison_table,
    load_images,
    parse_attacks,
    parse_eps,
)
from guard_plugin.injection.penalty_choice import make_penalty
from guard_plugin.networks.architectures import build_network
from guard_plugin.plugins import Plugins, installed_plugins, look_up

__all__ = ["METHODS", "run_demo"]

ARMS = ("baseline", "guard")
METHODS = ("dc", "sre2l", "cda")


def run_demo(settings: DemoSettings, out: Path, say: Callable[[str], None]) -> None:
    """Distil with and without GUARD, train students on both, attack them, and print what was measured.

    Args:
        settings: What to do.
        out: The folder for everything that is written.
        say: Prints a line.

    Raises:
        GuardError: If something cannot be used, or a step failed.
    """
    plugins = installed_plugins()
    method = _method(settings)
    _check(method, plugins)
    _claim(out, settings)
    finished: dict[str, FinishedBenchmark] = {}
    sets: dict[str, list[DistilledSet]] = {}
    for arm in ARMS:
        folder = out / arm
        folder.mkdir(exist_ok=True)
        say(f"{arm}: distilling {settings.dataset}, {settings.ipc} image(s) per class")
        place = method.distil(_options(settings, arm), folder)
        sets[arm] = read_distilled(plugins.hook, method.adapter, place)
        say(f"{arm}: training and attacking {settings.students} students")
        finished[arm] = _benchmark(method, sets[arm], place, folder, plugins)
    _write(settings, sets, finished, out)
    _report(settings, finished, out, say)


def _method(settings: DemoSettings) -> DemoMethod[Any]:
    if isinstance(settings, DcSettings):
        return DcDemo(settings)
    if isinstance(settings, RecoverySettings) and settings.method in METHODS:
        return RecoveryDemo(settings)
    raise UnusableInput(f"expected the settings of one of {', '.join(METHODS)}, got {settings}")


def _options(settings: DemoSettings, arm: str) -> dict[str, Any]:
    return settings.penalty_options() | ({"strength": 0.0} if arm == "baseline" else {})


def _check(method: DemoMethod[Any], plugins: Plugins) -> None:
    """Refuse, before anything is distilled, what a later step would."""
    settings: DemoSettings = method.settings
    images = load_images(settings.dataset, settings.data, "test", settings.n_examples)
    channels, height, width = images.pixels.shape[1:]
    build_network(settings.arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))
    parse_attacks(settings.attacks, plugins.attack_classes, [parse_eps(settings.eps)])
    adapter = look_up("adapter", method.adapter, plugins.adapters)
    make_penalty(plugins, adapter, {"penalty": settings.penalty, **settings.penalty_options()})


def _claim(out: Path, settings: DemoSettings) -> None:
    """Take the folder, unless it holds another demo's files."""
    file, wanted = out / "settings.json", asdict(settings)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if file.exists() and _read(file) != wanted:
            raise UnusableInput(f"{out} holds a demo with other settings ({file}): choose another --out, or delete it")
        file.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UnusableInput(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _benchmark(
    method: DemoMethod[Any], sets: list[DistilledSet], place: Path, folder: Path, plugins: Plugins
) -> FinishedBenchmark:
    settings: DemoSettings = method.settings
    return benchmark_distilled(
        sets,
        dataset=settings.dataset,
        data_dir=settings.data,
        arch=settings.arch,
        attacks=settings.attacks,
        eps=[settings.eps],
        n_examples=settings.n_examples,
        seeds=settings.students,
        out=folder,
        subject=subject_of(method.adapter, place, sets),
        registry=plugins.attack_classes,
        ledger=json.loads((folder / LEDGER).read_text(encoding="utf-8")),
        **method.evaluation(folder),
    )


def _write(
    settings: DemoSettings, sets: dict[str, list[DistilledSet]], finished: dict[str, FinishedBenchmark], out: Path
) -> None:
    compared = comparison(finished["baseline"], finished["guard"])
    summary = {"schema": 1, "settings": asdict(settings), "comparison": compared}
    (out / "comparison.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draw(sets["baseline"][0], sets["guard"][0], out / "distilled.png")


def _report(
    settings: DemoSettings, finished: dict[str, FinishedBenchmark], out: Path, say: Callable[[str], None]
) -> None:
    say("")
    say(comparison_table(finished["baseline"], finished["guard"]))
    say("")
    say(f"students: {settings.students} per column, eps {settings.eps} (Linf, pixel space), seed {settings.seed}")
    say(f"ledger: {finished['guard'].results['ledger']['summary']}")
    say(f"files: {out / 'baseline' / 'results.json'}, {out / 'guard' / 'results.json'}, {out / 'comparison.json'},")
    say(f"       {out / 'distilled.png'} (top: baseline, bottom: GUARD)")
