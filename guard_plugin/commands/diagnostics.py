"""``guard curvature`` and ``guard bound``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from torch import nn

from guard_plugin.commands.options import (
    Command,
    Decorator,
    any_path,
    architecture,
    at_least_1,
    check_adapter,
    computing_device,
    data_options,
    device_option,
    existing_file,
    json_option,
    show,
    together,
    zca_option,
)
from guard_plugin.datasets import ImageSet, load_images, load_training_images
from guard_plugin.distilled import DistilledSet, read_distilled
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.fit import check_classes_agree
from guard_plugin.evaluation.results import data_protocol
from guard_plugin.evaluation.run import given_normalization, load_pixel_model
from guard_plugin.files import (
    explain_write_errors,
    file_sha256,
    is_our_json,
    refuse_foreign_files,
    refuse_other_file,
    write_json,
)
from guard_plugin.networks.pixel_model import finite_logits
from guard_plugin.plugins import installed_plugins
from guard_plugin.versions import require_torch_to_benchmark

__all__ = ["bound", "curvature"]

_folder = click.Path(path_type=Path, file_okay=False)


def _diagnostics_options(split: str) -> Decorator:
    """Return the options that both commands have; ``split`` is the default part of the data set."""
    tolerance = click.FloatRange(0, 1, min_open=True, max_open=True)
    return together(
        click.option("--arch", callback=architecture, required=True, help="The network's architecture."),
        data_options(["train", "val", "test"], split),
        click.option(
            "--space",
            type=click.Choice(["input", "pixel"]),
            default="input",
            show_default=True,
            help="Space of lengths and curvature: the network's input, as in the authors' code, or pixels in [0, 1].",
        ),
        click.option("--steps", type=at_least_1, default=30, show_default=True, help="The most Lanczos steps."),
        click.option(
            "--tol",
            type=tolerance,
            default=1e-3,
            show_default=True,
            help="Residual over |lambda_1| at which an eigenvalue counts as converged.",
        ),
        click.option("--batch-size", type=at_least_1, default=32, show_default=True, help="Examples at once."),
        device_option,
        json_option,
    )


@click.command(cls=Command)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=existing_file,
    multiple=True,
    required=True,
    help="Weights; several are compared.",
)
@click.option("--dataset", required=True, help="Data set to measure on.")
@click.option("--h", type=float, required=True, help="L2 length of the surrogate's step, in --space.")
@click.option("--normalization", help='What the network is fed; "none" for pixels.  [default: usual for the data set]')
@click.option("--out", type=_folder, required=True, help="Folder to write.")
@_diagnostics_options("test")
def curvature(
    checkpoints: tuple[Path, ...],
    dataset: str,
    h: float,
    normalization: str | None,
    out: Path,
    arch: str,
    data_dir: str | None,
    split: str,
    n_examples: int | None,
    num_classes: int | None,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure how curved the loss is around images: the largest eigenvalue of the input Hessian, per example.

    Beside it stand the surrogate that GUARD penalises, and how well its direction fits. Writes OUT/curvature.json, with
    all values, and OUT/curvature.png, the distributions.
    """
    from guard_plugin import diagnostics

    require_torch_to_benchmark()

    if len(set(checkpoints)) < len(checkpoints):
        raise UnusableInput("expected different checkpoints, got one of them twice")
    diagnostics.matplotlib_figure()
    _check_out(out, "curvature.json", "curvature.png")
    place = computing_device(device)
    images = load_images(dataset, data_dir, split, n_examples, num_classes)
    space = given_normalization(normalization, images)
    pixels, labels = images.pixels.to(place), images.labels.to(place)
    identities = {str(file): _identity(file) for file in checkpoints}
    models = {str(file): load_pixel_model(file, arch, space, images) for file in checkpoints}
    for name, model in models.items():  # before the first of them is measured, which may take hours
        _check_logits(name, model, images)
    reports = {
        name: diagnostics.input_curvature(model.to(place), pixels, labels, h=h, **settings)
        for name, model in models.items()
    }
    summaries = {name: diagnostics.summary(report) for name, report in reports.items()}
    found = {
        "schema": 1,
        "data": data_protocol(images, split),
        "arch": arch,
        "normalization": space.describe(),
        "settings": {"h": h, **settings},
        "checkpoints": [
            {**identities[name], "summary": summaries[name], "per_example": report.per_example()}
            for name, report in reports.items()
        ],
    }
    _write_json(out / "curvature.json", found)
    diagnostics.draw_curvature(reports, out / "curvature.png")
    heading = f"{images.name}, the first {len(images.labels)} images of {split}; {settings['space']} space, h = {h:g}"
    files = f"files: {out / 'curvature.json'}, {out / 'curvature.png'}"
    show(found, f"{heading}\n\n{diagnostics.curvature_table(summaries)}\n\n{files}", as_json)


@click.command(cls=Command)
@click.option(
    "--checkpoint", type=existing_file, required=True, help="Weights of a network trained on the distilled set."
)
@click.option("--distilled", type=any_path, required=True, help="What the host wrote.")
@click.option("--adapter", required=True, help="Adapter of the host that wrote it, or plain.")
@click.option(
    "--experiment", type=click.IntRange(min=0), help="Number of the set, from 0, where the host wrote several."
)
@click.option("--dataset", help="Data set that was distilled.  [default: what the distilled set says]")
@zca_option
@click.option("--rho", type=float, required=True, help="L2 radius of the ball, in --space.")
@click.option("--out", type=_folder, help="Folder for bound.json.")
@_diagnostics_options("train")
def bound(
    checkpoint: Path,
    distilled: Path,
    adapter: str,
    experiment: int | None,
    dataset: str | None,
    zca: bool | None,
    rho: float,
    out: Path | None,
    arch: str,
    data_dir: str | None,
    split: str,
    n_examples: int | None,
    num_classes: int | None,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure both sides of GUARD's bound (Proposition 1) on the adversarial loss of distilled images, class by class.

    The right side is of the real images (by default the first N for training), the left side what an L2 attack finds
    around the distilled ones. docs/diagnostics.md lists what the bound assumes.
    """
    from guard_plugin import diagnostics

    require_torch_to_benchmark()

    if out:
        _check_out(out, "bound.json")
    place, plugins = computing_device(device), installed_plugins()
    check_adapter(adapter, plugins)
    one = _chosen(read_distilled(plugins.hook, adapter, distilled), experiment)
    name = dataset or one.dataset
    if name is None:
        raise UnusableInput("expected --dataset: the distilled file does not contain it")
    one = one.for_dataset(name).with_num_classes(num_classes)
    space = one.space(zca)
    if space.needs_fit:
        space = space.fitted(load_training_images(name, data_dir).pixels)
    images = load_images(name, data_dir, split, n_examples, num_classes)
    check_classes_agree(one, images)
    model = load_pixel_model(checkpoint, arch, space, images).to(place)
    one = replace(one, normalization=space, images=one.images.to(place), labels=one.labels.to(place))
    report = diagnostics.bound(model, images.pixels.to(place), images.labels.to(place), one, rho=rho, **settings)
    found = {
        "schema": 1,
        "checkpoint": _identity(checkpoint),
        "data": data_protocol(images, split),
        "arch": arch,
        **report.to_json(),
    }
    if out:
        _write_json(out / "bound.json", found)
    heading = f"{images.name}, the first {len(images.labels)} images of {split}"
    show(found, f"{heading}\n\n{diagnostics.bound_table(report)}", as_json)


def _identity(checkpoint: Path) -> dict[str, str]:
    return {"path": str(checkpoint), "sha256": file_sha256(checkpoint)}


def _chosen(sets: list[DistilledSet], experiment: int | None) -> DistilledSet:
    allowed = f"--experiment from 0 to {len(sets) - 1}"
    if experiment is None and len(sets) > 1:
        raise UnusableInput(f"the host wrote {len(sets)} distilled sets: name the network's training set, by {allowed}")
    number = experiment or 0
    if number >= len(sets):
        raise UnusableInput(f"expected {allowed}, got {number}")
    return sets[number]


def _check_logits(name: str, model: nn.Module, images: ImageSet) -> None:
    try:
        finite_logits(model, images.pixels[:1])
    except UnusableInput as error:
        raise UnusableInput(f"{name}: {error}") from error


def _check_out(out: Path, report: str, *drawings: str) -> None:
    """Make the folder, and refuse, before anything is measured, one where a file of another would be replaced."""
    with explain_write_errors(out, "Choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError("permission denied")
        refuse_foreign_files(out, drawings, report)
        expected = f"no {report} in {out}, or one of this command to replace"
        refuse_other_file(out / report, is_our_json, expected=expected, fix="choose another --out")


def _write_json(file: Path, found: Mapping[str, Any]) -> None:
    with explain_write_errors(file, "Choose another --out"):
        write_json(file, found)
