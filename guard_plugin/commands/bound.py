"""``guard bound``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from guard_plugin.commands.measuring import (
    described,
    existing_file,
    headline,
    measuring_options,
    pixel_model,
    write_json,
)
from guard_plugin.datasets import load_images, load_training_images
from guard_plugin.distilled import DistilledSet, read_distilled
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.running import usable_device
from guard_plugin.files import file_sha256
from guard_plugin.plugins import installed_plugins, look_up

__all__ = ["bound"]


@click.command()
@click.option(
    "--checkpoint", type=existing_file, required=True, help="Weights of a network trained on the distilled set."
)
@click.option("--distilled", type=click.Path(path_type=Path), required=True, help="What the host wrote.")
@click.option("--adapter", required=True, help="Adapter whose host wrote it.")
@click.option(
    "--experiment", type=click.IntRange(min=0), help="Which set, counted from 0, where the host wrote several."
)
@click.option("--dataset", help="Data set that was distilled.  [default: as the distilled set tells]")
@click.option("--zca/--no-zca", default=None, help="Whether the host ran with --zca.  [default: what its files tell]")
@click.option("--rho", type=float, required=True, help="L2 radius of the ball, in --space.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for bound.json.")
@measuring_options("train")
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
    data: str | None,
    split: str,
    n_examples: int | None,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure both sides of GUARD's bound on the adversarial loss of distilled images, class by class.

    The right side is of the real images (by default the first N for training), the left side what an L2 attack finds
    around the distilled ones. docs/diagnostics.md tells what the bound assumes.
    """
    from guard_plugin import diagnostics

    place = usable_device(device)
    plugins = installed_plugins()
    look_up("adapter", adapter, plugins.adapters)
    one = _one_of(read_distilled(plugins.hook, adapter, distilled), experiment)
    if dataset is None and one.dataset is None:
        raise UnusableInput("expected --dataset: the distilled file does not tell it")
    name = dataset or one.dataset or ""
    one = _with_fitted_space(one.for_dataset(name), zca, name, data)
    images = load_images(name, data, split, n_examples)
    model = pixel_model(checkpoint, arch, images, one.normalization).to(place)
    one = replace(one, images=one.images.to(place), labels=one.labels.to(place))
    report = diagnostics.bound(model, images.pixels.to(place), images.labels.to(place), one, rho=rho, **settings)
    found = {
        "schema": 1,
        "checkpoint": {"path": str(checkpoint), "sha256": file_sha256(checkpoint)},
        "data": described(images, split),
        "arch": arch,
        **report.to_json(),
    }
    if out:
        write_json(out / "bound.json", found)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{headline(images, split)}\n")
    click.echo(diagnostics.bound_table(report))


def _one_of(sets: list[DistilledSet], experiment: int | None) -> DistilledSet:
    if experiment is None and len(sets) > 1:
        raise UnusableInput(
            f"the host wrote {len(sets)} distilled sets: say which of them the network was trained on, by --experiment "
            f"0 to {len(sets) - 1}"
        )
    number = experiment or 0
    if number >= len(sets):
        raise UnusableInput(f"expected --experiment from 0 to {len(sets) - 1}, got {number}")
    return sets[number]


def _with_fitted_space(one: DistilledSet, zca: bool | None, dataset: str, data: str | None) -> DistilledSet:
    space = one.normalization if zca is None else one.normalization.decided(zca)
    if space.needs_fit:
        space = space.fitted(load_training_images(dataset, data).pixels)
    return replace(one, normalization=space)
