"""Options that several commands have, and how commands show and write what they found."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file

__all__ = [
    "at_least_1",
    "data_options",
    "device_option",
    "diagnostics_options",
    "existing_file",
    "json_option",
    "penalty_options",
    "show",
    "write_json",
    "zca_option",
]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

at_least_1 = click.IntRange(min=1)
existing_file = click.Path(path_type=Path, exists=True, dir_okay=False)

device_option = click.option("--device", default="cpu", show_default=True, help="The device that computes.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
zca_option = click.option(
    "--zca/--no-zca", default=None, help="Whether the host ran with --zca.  [default: what its files say]"
)


def _together(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


penalty_options = _together(
    click.option("--strength", type=float, help="Weight of the penalty; 0 is the plain run, bit for bit."),
    click.option("--h", type=float, help="L2 length of the step in the network's input space."),
    click.option("--form", type=click.Choice(["gradient", "loss"]), help="Form of the curvature penalty."),
    click.option("--penalty", metavar="NAME", help="The penalty: guard plugins lists them.  [default: curvature]"),
)


def data_options(splits: list[str], default: str) -> Decorator:
    """Return the options that choose the images of a measurement: ``data_dir``, ``split`` and ``n_examples``."""
    choice = click.Choice(splits)
    return _together(
        click.option("--data", "data_dir", metavar="DIR", help="Folder of the data set; nothing is downloaded."),
        click.option("--split", type=choice, default=default, show_default=True, help="Part of the data set."),
        click.option("--n-examples", type=at_least_1, help="Measure on the first N images.  [default: all]"),
    )


def diagnostics_options(split: str) -> Decorator:
    """Return the options of ``guard curvature`` and ``guard bound``; ``split`` is the default part of the data set."""
    tolerance = click.FloatRange(0, 1, min_open=True, max_open=True)
    return _together(
        click.option("--arch", required=True, help="The network's architecture."),
        data_options(["train", "val", "test"], split),
        click.option(
            "--space",
            type=click.Choice(["input", "pixel"]),
            default="input",
            show_default=True,
            help="Space of lengths and curvature: the network's input, as in the paper, or pixels in [0, 1].",
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


def show(found: Any, text: str, as_json: bool) -> None:
    """Print what a command found: as JSON for programs, or the text for people."""
    click.echo(json.dumps(found) if as_json else text)


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
