"""``guard curvature``."""

import json
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
from guard_plugin.datasets import ImageSet, load_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.running import usable_device
from guard_plugin.files import file_sha256
from guard_plugin.spaces import InputSpace
from guard_plugin.spaces.usual import normalization_named, parse_normalization

__all__ = ["curvature"]


@click.command()
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
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write.")
@measuring_options("test")
def curvature(
    checkpoints: tuple[Path, ...],
    dataset: str,
    h: float,
    normalization: str | None,
    out: Path,
    arch: str,
    data: str | None,
    split: str,
    n_examples: int | None,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure how curved the loss is around images: the largest eigenvalue of the input Hessian, per example.

    Beside it stand the surrogate that GUARD penalises, and how well its direction fits. Writes OUT/curvature.json, with
    all values, and OUT/curvature.png, the distributions.
    """
    from guard_plugin import diagnostics

    if len(set(checkpoints)) < len(checkpoints):
        raise UnusableInput("expected different checkpoints, got one of them twice")
    diagnostics.matplotlib_figure()
    place = usable_device(device)
    images = load_images(dataset, data, split, n_examples)
    space = _normalization(normalization, dataset, images)
    reports = {}
    for file in checkpoints:
        model = pixel_model(file, arch, images, space).to(place)
        reports[str(file)] = diagnostics.input_curvature(
            model, images.pixels.to(place), images.labels.to(place), h=h, **settings
        )
    summaries = {name: diagnostics.summary(report) for name, report in reports.items()}
    found = {
        "schema": 1,
        "data": described(images, split),
        "arch": arch,
        "normalization": space.describe(),
        "settings": {"h": h, **settings},
        "checkpoints": [
            {"path": name, "sha256": file_sha256(Path(name)), "summary": summaries[name], "per_example": one}
            for name, one in ((name, report.per_example()) for name, report in reports.items())
        ],
    }
    write_json(out / "curvature.json", found)
    diagnostics.draw_curvature(reports, out / "curvature.png")
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{headline(images, split)}; {settings['space']} space, h = {h:g}\n")
    click.echo(diagnostics.curvature_table(summaries))
    click.echo(f"\nfiles: {out / 'curvature.json'}, {out / 'curvature.png'}")


def _normalization(given: str | None, dataset: str, images: ImageSet) -> InputSpace:
    channels = images.pixels.shape[1]
    return normalization_named(dataset) if given is None else parse_normalization(given, channels)
