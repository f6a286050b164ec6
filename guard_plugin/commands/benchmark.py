"""``guard benchmark``."""

import json
from pathlib import Path
from typing import Any

import click

from guard_plugin.distilled import read_distilled, subject_of
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.checkpoint_benchmark import benchmark_checkpoints
from guard_plugin.evaluation.distilled_benchmark import benchmark_distilled
from guard_plugin.evaluation.results import FinishedBenchmark
from guard_plugin.evaluation.tables import results_table
from guard_plugin.plugins import installed_plugins, look_up
from guard_plugin.ranks import is_main_process

__all__ = ["benchmark"]

_PLAIN = "plain"  # files of no host: there is nothing to adapt

_at_least_1 = click.IntRange(min=1)
_file = click.Path(path_type=Path, exists=True, dir_okay=False)

# What only makes sense for the networks of one of the two kinds of subject.
_FOR_STUDENTS = ("adapter", "host_dataset", "seeds", "recipe", "fkd", "teacher", "teacher_arch", "learning_rate", "zca")
_FOR_CHECKPOINTS = ("normalization",)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write, and to go on in.")
@click.option("--distilled", type=click.Path(path_type=Path), help="What a host wrote: students are trained on it.")
@click.option("--adapter", help='Adapter whose host wrote it; "plain" for a .pt or .npz of images and labels.')
@click.option(
    "--checkpoint", type=_file, multiple=True, help="A trained network, in place of --distilled; may be repeated."
)
@click.option("--dataset", help="Data set to attack.  [default: the one that was distilled]")
@click.option("--host-dataset", help="The host's name for it, where --dataset is a folder: ImageNet.")
@click.option("--data", metavar="DIR", help="Folder of the data set; nothing is downloaded.")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True, help="Its part.")
@click.option("--arch", help="Networks' architecture.  [default: the network that distilled]")
@click.option("--attacks", default="quick", show_default=True, help="Attacks, comma separated, or a preset.")
@click.option("--eps", help="Radii in pixel space, comma separated: 1/255,8/255.  [default: the preset's]")
@click.option("--n-examples", type=_at_least_1, help="Attack the first N images.  [default: all]")
@click.option("--seeds", type=_at_least_1, help="Number of students.  [default: 5]")
@click.option(
    "--batch-size", type=_at_least_1, default=128, show_default=True, help="Examples per pass; changes no result."
)
@click.option("--recipe", help="How students are trained.  [default: as the host does it]")
@click.option(
    "--fkd",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="For recipe sre2l: soft labels that relabel wrote, the folder of epoch_0.",
)
@click.option("--teacher", type=_file, help="For recipe sre2l: a network's checkpoint, to label on the way.")
@click.option("--teacher-arch", help="The teacher's architecture.  [default: the students']")
@click.option("--learning-rate", type=float, help="Of the students, such as the one that MTT learned and logged.")
@click.option("--zca/--no-zca", default=None, help="Whether the host ran with --zca.  [default: what its files tell]")
@click.option(
    "--normalization", help='Of --checkpoint: "none", "mean=...;std=...".  [default: what is usual for the data set]'
)
@click.option("--source", type=_file, help="Checkpoint that attacks such as pgd100-transfer are made on.")
@click.option("--source-arch", help="Its architecture.")
@click.option("--source-normalization", help="Its normalization.  [default: what is usual for the data set]")
@click.option("--device", default="cpu", show_default=True, help="Where to compute.")
@click.option("--ledger", type=_file, help="Ledger of the guarded run, to keep along.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def benchmark(
    distilled: Path | None,
    checkpoint: tuple[Path, ...],
    data: str | None,
    eps: str | None,
    ledger: Path | None,
    source: Path | None,
    source_arch: str | None,
    source_normalization: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train students on a distilled set (or take a checkpoint), attack them in pixel space, and write OUT/results.json.

    A run that was killed goes on where it was when the same command is given again. Under torchrun the processes share
    the work: torchrun --nproc-per-node N -m guard_plugin benchmark ...
    """
    if bool(distilled) == bool(checkpoint):
        raise UnusableInput("expected either --distilled PATH with --adapter NAME, or --checkpoint FILE")
    _refuse(options, _FOR_CHECKPOINTS if distilled else _FOR_STUDENTS, "--checkpoint" if distilled else "--distilled")
    shared = {
        "data_dir": data,
        "eps": eps.split(",") if eps else None,
        "registry": installed_plugins().attack_classes,
        "ledger": _read_ledger(ledger) if ledger else None,
        "source": _source(source, source_arch, source_normalization),
        **{name: value for name, value in options.items() if name not in (*_FOR_STUDENTS, *_FOR_CHECKPOINTS)},
    }
    special = {name: options[name] for name in (*_FOR_STUDENTS, *_FOR_CHECKPOINTS)}
    finished = _students(distilled, special, shared) if distilled else _checkpoints(checkpoint, special, shared)
    if is_main_process():
        _show(finished, options["out"], as_json)


def _students(distilled: Path, special: dict[str, Any], shared: dict[str, Any]) -> FinishedBenchmark:
    adapter, seeds, plugins = special.pop("adapter"), special.pop("seeds"), installed_plugins()
    if adapter is None:
        raise UnusableInput("expected --adapter, whose host wrote the distilled set (plain: of no host)")
    if adapter != _PLAIN:
        look_up("adapter", adapter, plugins.adapters)
    sets = read_distilled(plugins.hook, adapter, distilled)
    for name in ("dataset", "arch"):
        shared[name] = _given(name, shared[name], getattr(sets[0], name))
    special = {name: value for name, value in special.items() if name in _FOR_STUDENTS}
    return benchmark_distilled(
        sets, subject=subject_of(adapter, distilled, sets), seeds=seeds or 5, **special, **shared
    )


def _checkpoints(files: tuple[Path, ...], special: dict[str, Any], shared: dict[str, Any]) -> FinishedBenchmark:
    for name in ("dataset", "arch"):
        shared[name] = _given(name, shared[name], None)
    return benchmark_checkpoints(files, normalization=special["normalization"], **shared)


def _show(finished: FinishedBenchmark, out: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(finished.results))
        return
    click.echo(results_table(finished))
    if finished.results["subject"]["kind"] == "checkpoint":
        click.echo(f"\nnormalization: {json.dumps(finished.results['protocol']['normalization'])}")
    for flag in finished.results["flags"]:
        click.echo(f"\nflag: {flag['column']}: {flag['reason']}")
    click.echo(f"\nfiles: {out / 'results.json'}, {out / 'records'}")


def _refuse(options: dict[str, Any], names: tuple[str, ...], belongs_to: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in names if options[name] is not None]
    if given:
        raise UnusableInput(f"{', '.join(given)} belongs to {belongs_to}: leave it away")


def _source(file: Path | None, arch: str | None, normalization: str | None) -> tuple[Path, str, str | None] | None:
    if file is None and (arch or normalization):
        raise UnusableInput("expected --source with --source-arch and --source-normalization")
    if file is None:
        return None
    if arch is None:
        raise UnusableInput("expected --source-arch, the architecture of --source")
    return file, arch, normalization


def _read_ledger(file: Path) -> dict[str, Any]:
    try:
        ledger = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError) as error:
        raise UnusableInput(f"--ledger {file} cannot be read as JSON: {error}") from error
    if not isinstance(ledger, dict):
        raise UnusableInput(f"--ledger {file}: expected what guard run --ledger writes, got {type(ledger).__name__}")
    return ledger


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no JSON")


def _given(name: str, given: str | None, found: str | None) -> str:
    if given is None and found is None:
        raise UnusableInput(f"expected --{name}: the file does not tell it")
    return given or found or ""
