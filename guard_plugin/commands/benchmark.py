"""``guard benchmark``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from guard_plugin.commands.options import (
    Command,
    any_path,
    architecture,
    assigned,
    at_least_1,
    check_adapter,
    computing_device,
    data_options,
    device_option,
    existing_file,
    json_option,
    show,
    zca_option,
)
from guard_plugin.datasets import DATASETS
from guard_plugin.distilled import read_distilled, subject_of
from guard_plugin.distilled.markers import origin_of
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.checkpoint_benchmark import benchmark_checkpoints
from guard_plugin.evaluation.distilled_benchmark import benchmark_distilled
from guard_plugin.evaluation.options import FEWEST_STUDENTS, FOR_CHECKPOINTS, FOR_STUDENTS, BenchmarkOptions
from guard_plugin.evaluation.proof import check_ledger, proof_in_words
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.tables import counted, results_table
from guard_plugin.files import read_json_object
from guard_plugin.names import spelled
from guard_plugin.networks.architectures import ARCHITECTURES, architecture_named
from guard_plugin.plugins import installed_plugins
from guard_plugin.ranks import is_main_process
from guard_plugin.students import RECIPES
from guard_plugin.versions import require_torch_to_benchmark

__all__ = ["benchmark"]

_NAMES = {
    "dataset": f"one of {', '.join(DATASETS)}, another one of torchvision's, a .npz file or a folder of images",
    "arch": f"one of {', '.join(ARCHITECTURES)}, or another one of torchvision's",
}
_OPTIONS = {"recipe_values": "--epochs or --set"}  # what sets a field of another name


@click.command(cls=Command)
@click.option("--out", type=any_path, required=True, help="Folder to write, and to continue in.")
@click.option(
    "--distilled",
    type=any_path,
    multiple=True,
    help="What a host wrote: students are trained on it. Repeat it for each seed that a method was distilled with.",
)
@click.option("--adapter", help='Adapter of the host that wrote it; "plain" for a .pt or .npz of images and labels.')
@click.option(
    "--checkpoint",
    "checkpoints",
    type=existing_file,
    multiple=True,
    help="A trained network, in place of --distilled; may be repeated.",
)
@click.option("--dataset", help="Data set to attack.  [default: the one that was distilled, as files or markers tell]")
@click.option("--host-dataset", help="The host's name for the data set, where --dataset is a folder: ImageNet.")
@data_options(["val", "test"], "test")
@click.option("--arch", help="The networks' architecture.  [default: the network that distilled, likewise]")
@click.option("--attacks", default="quick", show_default=True, help="Attacks, comma separated, or a preset.")
@click.option("--eps", help="Radii in pixel space, comma separated: 1/255,8/255.  [default: the preset's]")
@click.option(
    "--seeds",
    type=at_least_1,
    help=f"Number of students.  [default: {FEWEST_STUDENTS} or more, equally many for each distilled set]",
)
@click.option(
    "--batch-size", type=at_least_1, default=128, show_default=True, help="Examples per pass; changes no result."
)
@click.option(
    "--recipe", help=f"How students are trained: {', '.join(RECIPES)}.  [default: as the host does it for the data set]"
)
@click.option(
    "--epochs", type=at_least_1, help="Passes of a student over the distilled images.  [default: the recipe's]"
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another value of the recipe, such as batch_size=64; an unknown name lists them all.",
)
@click.option(
    "--fkd",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="For recipes sre2l...: soft labels that relabel wrote, the folder of epoch_0; once for each distilled set.",
)
@click.option(
    "--teacher",
    type=existing_file,
    multiple=True,
    help="For recipes sre2l...: checkpoint of a network that labels the views; for all sets, or once for each.",
)
@click.option("--teacher-arch", callback=architecture, help="The teacher's architecture.  [default: the students']")
@click.option(
    "--teacher-normalization",
    help='What the teacher is fed; "none" for pixels.  [default: as students are; if pixels, usual for the data set]',
)
@click.option("--learning-rate", type=float, help="Of the students, such as the one that MTT learned and logged.")
@zca_option
@click.option(
    "--normalization", help='Of --checkpoint: "none", "mean=...;std=...".  [default: what is usual for the data set]'
)
@click.option("--source", type=existing_file, help="Checkpoint that attacks such as pgd100-transfer are made on.")
@click.option("--source-arch", callback=architecture, help="Its architecture.")
@click.option("--source-normalization", help="Its normalization.  [default: what is usual for the data set]")
@device_option
@click.option(
    "--ledger",
    "ledgers",
    type=existing_file,
    multiple=True,
    help="Ledger of the guarded run, to keep in the results; once for each --distilled.",
)
@json_option
def benchmark(
    distilled: tuple[Path, ...],
    checkpoints: tuple[Path, ...],
    eps: str | None,
    ledgers: tuple[Path, ...],
    epochs: int | None,
    assignments: tuple[str, ...],
    source: Path | None,
    source_arch: str | None,
    source_normalization: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train students on distilled sets (or take checkpoints), attack them in pixel space, and write OUT/results.json.

    What a method is worth shows in several sets that were distilled with different seeds, not in more students of one.
    A run that was killed is continued when the same command is given again. Under torchrun the processes share the
    work: torchrun --nproc-per-node N -m guard_plugin benchmark ...
    """
    require_torch_to_benchmark()
    if bool(distilled) == bool(checkpoints):
        raise UnusableInput("expected either --distilled PATH with --adapter NAME, or --checkpoint FILE")
    options["recipe_values"] = _recipe_values(epochs, assignments)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    other, names = ("--checkpoint", FOR_CHECKPOINTS) if distilled else ("--distilled", ("adapter", *FOR_STUDENTS))
    misplaced = [_OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in names if name in given]
    if misplaced:
        raise UnusableInput(f"{', '.join(misplaced)} belongs to {other}: leave it out")
    given |= {
        "device": computing_device(given["device"]),
        "eps": None if eps is None else eps.split(","),
        "registry": installed_plugins().attack_classes,
        "ledger": [_ledger(file) for file in ledgers],
        "source": _source(source, source_arch, source_normalization),
    }
    if distilled:
        finished = _benchmark_students(distilled, given)
    else:
        finished = benchmark_checkpoints(checkpoints, BenchmarkOptions(**_complete(given, hosts=None)))
    if is_main_process():
        show(finished.results, _text(finished, given["out"]), as_json)


def _ledger(file: Path) -> dict[str, Any]:
    """Read the ledger of a guarded run that is complete; refuse other JSON, such as a marker."""
    ledger = read_json_object(file)
    check_ledger(ledger, str(file))
    return ledger


def _recipe_values(epochs: int | None, assignments: tuple[str, ...]) -> dict[str, Any] | None:
    """Return what --epochs and --set give, by name; None where neither was given."""
    values = assigned(assignments, taken=("epochs", "learning_rate"))
    return {**values, **({} if epochs is None else {"epochs": epochs})} or None


def _benchmark_students(distilled: tuple[Path, ...], given: dict[str, Any]) -> FinishedBenchmark:
    adapter, plugins = given.pop("adapter", None), installed_plugins()
    if adapter is None:
        raise UnusableInput("expected --adapter, whose host wrote the distilled set (plain: of no host)")
    check_adapter(adapter, plugins)
    if len(set(distilled)) < len(distilled):
        raise UnusableInput(f"expected --distilled that are all different, got {', '.join(map(str, distilled))}")
    if len(given["ledger"]) not in (0, len(distilled)):
        raise UnusableInput(
            f"expected a --ledger for each of {len(distilled)} --distilled, or none, got {len(given['ledger'])}"
        )
    classes = given.get("num_classes")
    by_path = {
        path: [one.with_num_classes(classes) for one in read_distilled(plugins.hook, adapter, path)]
        for path in distilled
    }
    sets = [one for of in by_path.values() for one in of]
    told = {} if sets[0].dataset and sets[0].arch else _told_by_markers((distilled[0], *sets[0].files[:1]))
    found = {"dataset": sets[0].dataset or told.get("dataset"), "arch": sets[0].arch or told.get("arch")}
    spaces = sets[0].input_spaces
    if "dataset" in given and "dataset" in told and spaces and spelled(given["dataset"], spaces) not in spaces:
        given.setdefault("host_dataset", told["dataset"])  # the one given is a folder of it
    given = _complete({name: value for name, value in found.items() if value is not None} | given, found["arch"])
    return benchmark_distilled(sets, subject=subject_of(adapter, by_path), **given)


def _told_by_markers(paths: Iterable[Path]) -> Mapping[str, str]:
    """Return what the first marker that tells of data set and architecture says; nothing if none does."""
    return next((about for path in paths if (about := origin_of(path).about)), {})


def _complete(given: dict[str, Any], hosts: str | None) -> dict[str, Any]:
    """Refuse a choice without data set or architecture; the name of a host's network is read as the host writes it."""
    for name in ("dataset", "arch"):
        if name not in given:
            raise UnusableInput(f"expected --{name}, {_NAMES[name]}: the file does not contain it")
    return given if given["arch"] == hosts else {**given, "arch": architecture_named(given["arch"])}


def _text(finished: FinishedBenchmark, out: Path) -> str:
    parts = [results_table(finished), counted(finished.results)]
    parts += ["\n".join(proof_in_words(finished.results))]
    if finished.results["subject"]["kind"] == "checkpoint":
        parts.append(f"normalization: {json.dumps(finished.results['protocol']['normalization'])}")
    parts += [f"warning: {warning['column']}: {warning['reason']}" for warning in finished.results["flags"]]
    parts.append(f"files: {out / 'results.json'}, {out / 'records'}")
    return "\n\n".join(parts)


def _source(file: Path | None, arch: str | None, normalization: str | None) -> tuple[Path, str, str | None] | None:
    if file is None:
        if arch or normalization:
            raise UnusableInput("expected --source with --source-arch and --source-normalization")
        return None
    if arch is None:
        raise UnusableInput("expected --source-arch, the architecture of --source")
    return file, arch, normalization
