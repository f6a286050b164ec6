"""The command line: ``guard`` and its commands."""

import io
import platform
import sys

import click
import torch

from guard_plugin import __version__
from guard_plugin.commands.benchmark import benchmark
from guard_plugin.commands.compare import compare
from guard_plugin.commands.demo import demo
from guard_plugin.commands.diagnostics import bound, curvature
from guard_plugin.commands.leaderboard import leaderboard
from guard_plugin.commands.observe import observe
from guard_plugin.commands.plugins import doctor, list_plugins
from guard_plugin.commands.run import run
from guard_plugin.errors import GuardError
from guard_plugin.foreign_text import printable

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line; an error of ours ends it with its exit code and one message."""
    try:
        code = cli.main(standalone_mode=False, prog_name="guard")
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(printable(shown.getvalue()), err=True, nl=False)
        code = error.exit_code
    except GuardError as error:
        _report(str(error))
        code = error.exit_code
    except (OSError, MemoryError) as error:  # not a host's own: those are shown as Python shows them
        _report(f"{type(error).__name__}: {error}")
        code = GuardError.exit_code
    sys.exit(code)


def _report(problem: str) -> None:
    click.echo(printable(f"guard: error: {problem}"), err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(
    __version__,
    message=f"guard-plugin %(version)s (torch {torch.__version__}, Python {platform.python_version()})",
)
def cli() -> None:
    """GUARD: make dataset distillation adversarially robust, without touching the code that distils."""


for _command in (benchmark, bound, compare, curvature, demo, doctor, leaderboard, list_plugins, observe, run):
    cli.add_command(_command)
