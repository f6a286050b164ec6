"""Options that several commands have, and how commands show what they found."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import click
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import usable_device
from guard_plugin.foreign_text import printable, tell
from guard_plugin.networks.architectures import architecture_named
from guard_plugin.plugins import Plugins, look_up
from guard_plugin.ranks import is_main_process

__all__ = [
    "Command",
    "Decorator",
    "any_file",
    "any_path",
    "architecture",
    "assigned",
    "at_least_1",
    "check_adapter",
    "computing_device",
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


class Command(click.Command):
    """A command that refuses an empty text as a value: what the shell makes of "--eps $EPS" where EPS is not set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look at what was written before types read it: to a path, an empty text is the current folder."""
        written, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.params:
            given = written.get(param.name or "")
            values = given if isinstance(given, (list, tuple)) else [given]
            is_ours = param.type is not click.UNPROCESSED  # and not a word for the host's script
            if is_ours and any(isinstance(value, str) and not value.strip() for value in values):
                name = param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name
                leave_out = "" if param.required else f", or leave {name} out"
                raise UnusableInput(
                    f"expected a value for {name}, got an empty text: is a variable of the shell not set? Give the "
                    f"value{leave_out}"
                )
        return super().parse_args(ctx, args)


any_path = click.Path(path_type=Path)
at_least_1 = click.IntRange(min=1)
any_file = click.Path(path_type=Path, dir_okay=False)
existing_file = click.Path(path_type=Path, exists=True, dir_okay=False)


def architecture(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    """Read the name of a network whose weights come from a checkpoint, so that no network but the right one fits."""
    return name and architecture_named(name)


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="The device that computes, such as cpu or cuda:1; auto is the GPU where there is one.",
)
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
    """Return the options that choose a measurement's images: ``data_dir, split, n_examples, num_classes``."""
    choice = click.Choice(splits)
    return together(
        click.option("--data", "data_dir", metavar="DIR", help="Folder of the data set; nothing is downloaded."),
        click.option("--split", type=choice, default=default, show_default=True, help="Part of the data set."),
        click.option("--n-examples", type=at_least_1, help="Measure on the first N images.  [default: all]"),
        click.option(
            "--num-classes", type=at_least_1, help="Number of classes, where the images show none of the highest ones."
        ),
    )


def assigned(assignments: Iterable[str], *, taken: Collection[str]) -> dict[str, str]:
    """Split texts of the form NAME=VALUE.

    Args:
        assignments: Texts such as "eps=8/255"; UnusableInput is raised if one is not of this form.
        taken: Names that have an option of their own and are refused here, as is a name that is given twice.
    """
    values: dict[str, str] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise UnusableInput(f"expected --set NAME=VALUE, without spaces, got {text!r}")
        if name in taken:
            raise UnusableInput(f"--set {text}: {name} has an option of its own, --{name.replace('_', '-')}")
        if name in values:
            raise UnusableInput(f"--set {name} is given twice, as {values[name]} and as {value}")
        values[name] = value
    return values


def check_adapter(name: str, plugins: Plugins) -> None:
    """Refuse the name of an adapter that is not installed; distilled files of no host, "plain", need none."""
    if name != "plain":
        look_up("adapter", name, plugins.adapters)


def computing_device(name: str) -> torch.device:
    """Return the device that ``--device`` names, and say on stderr which one it is."""
    place = usable_device(name)
    if is_main_process():
        gpu = f" ({torch.cuda.get_device_name(place)})" if place.type == "cuda" else ""
        tell(f"computes on {place}{gpu}")
    return place


def show(found: Any, text: str, as_json: bool) -> None:
    """Print what a command found: as JSON for programs, or the text for people."""
    click.echo(json.dumps(found) if as_json else printable(text))
