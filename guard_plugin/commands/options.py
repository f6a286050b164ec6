"""Options that several commands have, and how commands show what they found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from guard_plugin.foreign_text import printable

__all__ = [
    "Decorator",
    "any_path",
    "at_least_1",
    "data_options",
    "device_option",
    "existing_file",
    "json_option",
    "module_option",
    "penalty_options",
    "show",
    "together",
    "zca_option",
]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

any_path = click.Path(path_type=Path)
at_least_1 = click.IntRange(min=1)
existing_file = click.Path(path_type=Path, exists=True, dir_okay=False)

device_option = click.option("--device", default="cpu", show_default=True, help="The device that computes.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
module_option = click.option("-m", "is_module", is_flag=True, help="SCRIPT is a module, as python -m takes it.")
zca_option = click.option(
    "--zca/--no-zca", default=None, help="Whether the host ran with --zca.  [default: what its files say]"
)


def together(*options: Decorator) -> Decorator:
    """Return a decorator that gives a command all these options, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


penalty_options = together(
    click.option("--strength", type=float, help="Weight of the penalty; 0 is the plain run, bit for bit."),
    click.option("--h", type=float, help="L2 length of the step in the network's input space."),
    click.option("--form", type=click.Choice(["gradient", "loss"]), help="Form of the curvature penalty."),
    click.option("--penalty", metavar="NAME", help="The penalty: guard plugins lists them.  [default: curvature]"),
)


def data_options(splits: list[str], default: str) -> Decorator:
    """Return the options that choose the images of a measurement: ``data_dir``, ``split`` and ``n_examples``."""
    choice = click.Choice(splits)
    return together(
        click.option("--data", "data_dir", metavar="DIR", help="Folder of the data set; nothing is downloaded."),
        click.option("--split", type=choice, default=default, show_default=True, help="Part of the data set."),
        click.option("--n-examples", type=at_least_1, help="Measure on the first N images.  [default: all]"),
    )


def show(found: Any, text: str, as_json: bool) -> None:
    """Print what a command found: as JSON for programs, or the text for people."""
    click.echo(json.dumps(found) if as_json else printable(text))
