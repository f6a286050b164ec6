"""What ``guard curvature`` and ``guard bound`` have in common: options, the network, the file they write."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from guard_plugin.datasets import ImageSet
from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file
from guard_plugin.networks.checkpoints import load_checkpoint
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.spaces import InputSpace

__all__ = ["described", "existing_file", "headline", "measuring_options", "pixel_model", "write_json"]

_at_least_1 = click.IntRange(min=1)
existing_file = click.Path(path_type=Path, exists=True, dir_okay=False)


def measuring_options(split: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of both; ``split`` is the default part of the data set."""
    options = [
        click.option("--arch", required=True, help="The network's architecture."),
        click.option("--data", metavar="DIR", help="Folder of the data set."),
        click.option(
            "--split", type=click.Choice(["train", "val", "test"]), default=split, show_default=True, help="Its part."
        ),
        click.option("--n-examples", type=_at_least_1, help="Measure on the first N images.  [default: all]"),
        click.option(
            "--space",
            type=click.Choice(["input", "pixel"]),
            default="input",
            show_default=True,
            help="Space of lengths and curvature: the network's input, as in the paper, or pixels in [0, 1].",
        ),
        click.option("--steps", type=_at_least_1, default=30, show_default=True, help="Most Lanczos steps."),
        click.option(
            "--tol",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=1e-3,
            show_default=True,
            help="Residual over |lambda_1| at which an eigenvalue counts as converged.",
        ),
        click.option("--batch-size", type=_at_least_1, default=32, show_default=True, help="Examples at once."),
        click.option("--device", default="cpu", show_default=True, help="Where to compute."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def pixel_model(file: Path, arch: str, images: ImageSet, space: InputSpace) -> PixelModel:
    """The checkpoint's network in pixel space, in eval mode, for these images."""
    channels, height, width = images.pixels.shape[1:]
    network = load_checkpoint(file, arch, channels=channels, num_classes=images.num_classes, im_size=(height, width))
    return PixelModel(network, space).eval()


def described(images: ImageSet, split: str) -> dict[str, Any]:
    """What was measured on, for JSON."""
    return {"dataset": images.name, "split": split, "n_examples": len(images.labels), "data_sha256": images.sha256}


def headline(images: ImageSet, split: str) -> str:
    """What was measured on, in words."""
    return f"{images.name}, the first {len(images.labels)} images of {split}"


def write_json(file: Path, found: Mapping[str, Any]) -> None:
    """Write a file that appears complete or not at all.

    Raises:
        UnusableInput: If it cannot be written.
    """
    try:
        with atomic_file(file) as stream:
            stream.write(json.dumps(found, indent=1, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise UnusableInput(f"cannot write {file}: {error}. Choose another --out") from error
