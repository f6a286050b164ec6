"""``guard bound``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from guard_plugin.commands.options import diagnostics_options, existing_file, show, write_json, zca_option
from guard_plugin.datasets import load_images, load_training_images
from guard_plugin.distilled import DistilledSet, read_distilled
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import usable_device
from guard_plugin.evaluation.results import data_protocol
from guard_plugin.evaluation.run import load_pixel_model
from guard_plugin.files import file_sha256
from guard_plugin.plugins import installed_plugins, look_up

__all__ = ["bound"]


@click.command()
@click.option(
    "--checkpoint", type=existing_file, required=True, help="Weights of a network trained on the distilled set."
)
@click.option("--distilled", type=click.Path(path_type=Path), required=True, help="What the host wrote.")
@click.option("--adapter", required=True, help="Adapter of the host that wrote it.")
@click.option(
    "--experiment", type=click.IntRange(min=0), help="Number of the set, from 0, where the host wrote several."
)
@click.option("--dataset", help="Data set that was distilled.  [default: what the distilled set says]")
@zca_option
@click.option("--rho", type=float, required=True, help="L2 radius of the ball, in --space.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for bound.json.")
@diagnostics_options("train")
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
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure both sides of GUARD's bound on the adversarial loss of distilled images, class by class.

    The right side is of the real images (by default the first N for training), the left side what an L2 attack finds
    around the distilled ones. docs/diagnostics.md lists what the bound assumes.
    """
    from guard_plugin import diagnostics

    place, plugins = usable_device(device), installed_plugins()
    look_up("adapter", adapter, plugins.adapters)
    one = _chosen(read_distilled(plugins.hook, adapter, distilled), experiment)
    name = dataset or one.dataset
    if name is None:
        raise UnusableInput("expected --dataset: the distilled file does not contain it")
    one = _with_fitted_space(one.for_dataset(name), zca, name, data_dir)
    images = load_images(name, data_dir, split, n_examples)
    model = load_pixel_model(checkpoint, arch, one.normalization, images).to(place)
    one = replace(one, images=one.images.to(place), labels=one.labels.to(place))
    report = diagnostics.bound(model, images.pixels.to(place), images.labels.to(place), one, rho=rho, **settings)
    found = {
        "schema": 1,
        "checkpoint": {"path": str(checkpoint), "sha256": file_sha256(checkpoint)},
        "data": data_protocol(images, split),
        "arch": arch,
        **report.to_json(),
    }
    if out:
        write_json(out / "bound.json", found)
    heading = f"{images.name}, the first {len(images.labels)} images of {split}"
    show(found, f"{heading}\n\n{diagnostics.bound_table(report)}", as_json)


def _chosen(sets: list[DistilledSet], experiment: int | None) -> DistilledSet:
    if experiment is None and len(sets) > 1:
        raise UnusableInput(
            f"the host wrote {len(sets)} distilled sets: say which of them the network was trained on, by --experiment "
            f"0 to {len(sets) - 1}"
        )
    number = experiment or 0
    if number >= len(sets):
        raise UnusableInput(f"expected --experiment from 0 to {len(sets) - 1}, got {number}")
    return sets[number]


def _with_fitted_space(one: DistilledSet, zca: bool | None, dataset: str, data_dir: str | None) -> DistilledSet:
    space = one.normalization if zca is None else one.normalization.decided(zca)
    if space.needs_fit:
        space = space.fitted(load_training_images(dataset, data_dir).pixels)
    return replace(one, normalization=space)
