"""``guard curvature``."""

from pathlib import Path
from typing import Any

import click

from guard_plugin.commands.options import diagnostics_options, existing_file, show, write_json
from guard_plugin.datasets import load_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import usable_device
from guard_plugin.evaluation.results import data_protocol
from guard_plugin.evaluation.run import given_normalization, load_pixel_model
from guard_plugin.files import file_sha256

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
@diagnostics_options("test")
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
    images = load_images(dataset, data_dir, split, n_examples)
    space = given_normalization(normalization, images)
    reports = {}
    for file in checkpoints:
        model = load_pixel_model(file, arch, space, images).to(place)
        reports[str(file)] = diagnostics.input_curvature(
            model, images.pixels.to(place), images.labels.to(place), h=h, **settings
        )
    summaries = {name: diagnostics.summary(report) for name, report in reports.items()}
    found = {
        "schema": 1,
        "data": data_protocol(images, split),
        "arch": arch,
        "normalization": space.describe(),
        "settings": {"h": h, **settings},
        "checkpoints": [
            {"path": name, "sha256": file_sha256(Path(name)), "summary": summaries[name], "per_example": examples}
            for name, examples in ((name, report.per_example()) for name, report in reports.items())
        ],
    }
    write_json(out / "curvature.json", found)
    diagnostics.draw_curvature(reports, out / "curvature.png")
    heading = f"{images.name}, the first {len(images.labels)} images of {split}; {settings['space']} space, h = {h:g}"
    files = f"files: {out / 'curvature.json'}, {out / 'curvature.png'}"
    show(found, f"{heading}\n\n{diagnostics.curvature_table(summaries)}\n\n{files}", as_json)
