"""Running both arms of the demo, and comparing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from guard_plugin.attacks.registry import usual_attacks
from guard_plugin.comparison import Comparison, compare, draw_distilled, notes, read_benchmark, write_page
from guard_plugin.comparison.report import legend, marked
from guard_plugin.demo.methods import LEDGER, distil, student_options
from guard_plugin.demo.settings import DcSettings, RecoverySettings
from guard_plugin.distilled import read_distilled, subject_of
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import benchmark_distilled
from guard_plugin.evaluation.folder import locked
from guard_plugin.evaluation.options import BenchmarkOptions
from guard_plugin.evaluation.run import BenchmarkRun
from guard_plugin.evaluation.tables import column_label, percent, text_table
from guard_plugin.files import explain_write_errors, read_json_object, refuse_foreign_files, write_json
from guard_plugin.injection.penalty_choice import choose_penalty
from guard_plugin.networks.architectures import build_network
from guard_plugin.plugins import Plugins, installed_plugins, look_up

__all__ = ["run_demo", "summarise"]

_WRITTEN = ("baseline", "guard", "comparison.json", "comparison.html", "distilled.png")


def run_demo(settings: DcSettings | RecoverySettings, out: Path, say: Callable[[str], None]) -> None:
    """Distil with and without GUARD, train students on both sets, attack them, and print what was measured.

    Args:
        settings: What to distil, and how to measure it.
        out: The folder for everything that is written.
        say: Prints a line.

    Raises:
        GuardError: If something cannot be used, or a step failed.
    """
    plugins = installed_plugins()
    settings = replace(settings, attacks=usual_attacks(settings.attacks, plugins.attack_classes))
    penalty = settings.penalty_options()
    _check(settings, penalty, plugins)
    with explain_write_errors(out, "Choose another --out"):
        refuse_foreign_files(out, _WRITTEN, "settings.json")
    sets = f"{settings.experiments} sets of {settings.ipc} image(s) per class"
    with locked(out):
        _claim(out, settings)
        for arm, changes in (("baseline", {"strength": 0.0}), ("guard", {})):
            folder = out / arm
            folder.mkdir(exist_ok=True)
            say(f"{arm}: distilling {settings.dataset}, {sets}")
            distilled = distil(settings, {**penalty, **changes}, folder)
            say(f"{arm}: training and attacking {settings.students} students")
            _benchmark(settings, distilled, folder, plugins)
        _compare(settings, out, say)


def _check(settings: DcSettings | RecoverySettings, penalty: Mapping[str, Any], plugins: Plugins) -> None:
    """Refuse, before anything is distilled, what a later step would refuse."""
    images = BenchmarkRun(BenchmarkOptions(out=Path(), **_protocol(settings, plugins))).images
    channels, height, width = images.pixels.shape[1:]
    build_network(settings.arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))
    choose_penalty(plugins, look_up("adapter", settings.method, plugins.adapters), dict(penalty))


def _claim(out: Path, settings: DcSettings | RecoverySettings) -> None:
    """Take the folder, unless it holds the files of a demo with other settings."""
    file, wanted = out / "settings.json", asdict(settings)
    with explain_write_errors(file, "Choose another --out"):
        if file.exists() and read_json_object(file) != wanted:
            raise UnusableInput(f"{out} holds a demo with other settings ({file}): choose another --out, or delete it")
        write_json(file, wanted)


def _protocol(settings: DcSettings | RecoverySettings, plugins: Plugins) -> dict[str, Any]:
    """Return the options of the benchmark that do not hang on what was distilled."""
    return {
        "dataset": settings.dataset,
        "data_dir": settings.data,
        "arch": settings.arch,
        "attacks": settings.attacks,
        "eps": [settings.eps],
        "n_examples": settings.n_examples,
        "seeds": settings.students,
        "registry": plugins.attack_classes,
    }


def _benchmark(
    settings: DcSettings | RecoverySettings, distilled: Sequence[Path], folder: Path, plugins: Plugins
) -> None:
    by_path = {path: read_distilled(plugins.hook, settings.method, path) for path in distilled}
    sets = [one for of in by_path.values() for one in of]
    benchmark_distilled(
        sets,
        out=folder,
        subject=subject_of(settings.method, by_path),
        **_protocol(settings, plugins),
        ledger=[read_json_object(path.parent / LEDGER) for path in distilled],
        **student_options(settings, distilled),
    )


def _compare(settings: DcSettings | RecoverySettings, out: Path, say: Callable[[str], None]) -> None:
    """Compare both arms as ``guard compare`` does; write comparison.json and the images, and print the table."""
    arms = [read_benchmark(out / arm) for arm in ("baseline", "guard")]
    comparison = compare(arms)
    values, table = summarise(comparison)
    summary = {"schema": 1, "settings": asdict(settings), "comparison": values}
    with explain_write_errors(out / "comparison.json"):
        write_json(out / "comparison.json", summary)
    draw_distilled(comparison, out / "distilled.png")
    write_page(comparison, out / "comparison.html")
    say(f"\n{table}\n{legend(comparison)}\n")
    for note in notes(comparison):
        say(note)
    say(f"\neps {settings.eps} (Linf, pixel space), seed {settings.seed}")
    say(f"ledger: {arms[1].results['ledger']['summary']}")
    say(f"files: {out / 'baseline' / 'results.json'}, {out / 'guard' / 'results.json'}, {out / 'comparison.json'},")
    say(f"       {out / 'distilled.png'} (the images), {out / 'comparison.html'} (all of it as a page)")


def summarise(comparison: Comparison) -> tuple[dict[str, dict[str, Any]], str]:
    """Summarise a comparison of GUARD with the baseline, for programs and for people.

    Returns:
        Per column: "baseline" and "guard" (mean accuracies), "difference" (guard - baseline) and its "ci95", all
        as fractions, and what the interval is "limited_by"; and a table with accuracies in percent, and differences in
        percent points.
    """
    values, rows = {}, [("accuracy (%)", "baseline", "GUARD", "difference [95 % CI]")]
    for column, entries in comparison.accuracy.items():
        baseline, guard = (entry["mean"] for entry in entries.values())
        (one,) = comparison.differences[column].values()
        values[column] = {
            "baseline": baseline,
            "guard": guard,
            "difference": one.value,
            "ci95": [one.low, one.high],
            "limited_by": one.limited_by,
        }
        rows.append((column_label(column), percent(baseline), percent(guard), marked(one)))
    return values, text_table(rows)
