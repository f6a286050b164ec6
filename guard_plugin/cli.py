"""The command line: thin; each command checks its input and calls one function."""

import json
import os
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import click

from guard_plugin import __version__
from guard_plugin.commands.benchmark import benchmark
from guard_plugin.commands.bound import bound
from guard_plugin.commands.compare import compare
from guard_plugin.commands.curvature import curvature
from guard_plugin.demo import METHODS, DemoSettings, run_demo, settings_for
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.hosts.doctor import Diagnosis, commit_of, examine
from guard_plugin.injection.launch import find_script, run_script
from guard_plugin.penalties.settings import assigned
from guard_plugin.plugins import installed_plugins, look_up

__all__ = ["cli", "main"]

_at_least_1 = click.IntRange(min=1)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def main() -> None:
    """Run the command line; errors of ours end it with their exit code and one message."""
    try:
        code = cli.main(standalone_mode=False, prog_name="guard")
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except GuardError as error:
        click.echo(f"guard: error: {error}", err=True)
        code = error.exit_code
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="guard-plugin")
def cli() -> None:
    """GUARD: make dataset distillation adversarially robust, without touching the code that distils."""


cli.add_command(benchmark)
cli.add_command(compare)
cli.add_command(curvature)
cli.add_command(bound)


def _penalty_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--strength", type=float, help="Weight of the penalty; 0 is the plain run, bit for bit."),
        click.option("--h", type=float, help="L2 length of the step in the network's input space."),
        click.option("--form", type=click.Choice(["gradient", "loss"]), help="Form of the curvature penalty."),
        click.option("--penalty", metavar="NAME", help="Which penalty: see guard plugins.  [default: curvature]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class _RunCommand(click.Command):
    """Options may stand before ADAPTER and before SCRIPT; all that follows SCRIPT is the script's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        adapter = self._end_of_options(args, 0)
        script = self._end_of_options(args, adapter + 1)
        options = [*args[:adapter], *args[adapter + 1 : script]]
        return super().parse_args(ctx, [*options, *args[adapter : adapter + 1], *args[script:]])

    def _end_of_options(self, args: list[str], start: int) -> int:
        with_value = [name for p in self.params if isinstance(p, click.Option) and not p.is_flag for name in p.opts]
        while start < len(args) and args[start].startswith("-"):
            start += 2 if args[start] in with_value else 1
        return start


@cli.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})
@_penalty_options
@click.option("--h-ramp", type=int, help="Guarded loss calls over which h rises to its value.  [default: 0]")
@click.option("--strength-ramp", type=int, help="Guarded loss calls over which strength rises.  [default: 0]")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Another setting of the penalty.")
@click.option(
    "--memory",
    type=click.Choice(["normal", "low"]),
    help="low: compute the penalty in small parts of the batch, slower.  [default: normal]",
)
@click.option(
    "--path",
    type=click.Choice(["auto", "shared", "separate", "reference"]),
    help="How the penalty is computed, for debugging: docs/performance.md.  [default: auto]",
)
@click.option("--repair", is_flag=True, help="Mend the host's known faults, in memory.")
@click.option(
    "--teacher",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Give this checkpoint to the script when it asks torchvision for pretrained weights.",
)
@click.option("--guard", multiple=True, metavar="MODULE:FUNCTION", help="For adapter auto: guard loss calls under it.")
@click.option("--suspend", multiple=True, metavar="MODULE:FUNCTION", help="For adapter auto: but not under this.")
@click.option("--expect", type=int, metavar="N", help="For adapter auto: how many loss calls must be guarded.")
@click.option("--ledger", type=click.Path(path_type=Path, dir_okay=False), help="Write the ledger to this JSON file.")
@click.option("--cwd", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Run in this folder.")
@click.argument("adapter")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[SCRIPT ARGS]...")
def run(
    adapter: str,
    script: str,
    arguments: tuple[str, ...],
    ledger: Path | None,
    cwd: Path | None,
    repair: bool,
    teacher: Path | None,
    assignments: tuple[str, ...],
    **options: Any,
) -> int:
    """Run an unmodified SCRIPT of a host under GUARD.

    Settings that are not given are those that ADAPTER recommends. For a host without an adapter, ADAPTER is "auto", and
    --guard and --suspend say where its loss calls on real data are. The ledger is printed to stderr at the end. Exit
    code: the script's own if it failed; 2 for unusable input; 3 if the script ended well but what had to be guarded
    was not.
    """
    options |= assigned(assignments, taken=options)
    path = find_script(script, cwd)
    ledger_file = ledger.absolute() if ledger else None
    teacher = teacher.absolute() if teacher else None
    if cwd is not None:
        path = path.absolute()
        os.chdir(cwd)
        script = script if Path(script).is_file() else str(path)
    return run_script(
        adapter, path, [script, *arguments], options, ledger_file=ledger_file, repair=repair, teacher=teacher
    )


@cli.command()
@_json_option
@click.argument("adapter")
@click.argument("host_folder", type=click.Path(path_type=Path))
def doctor(adapter: str, host_folder: Path, as_json: bool) -> int:
    """Check that HOST_FOLDER has the seams that ADAPTER needs, running nothing. Exit code 0, or 2 if one is missing."""
    plugins = installed_plugins()
    known = look_up("adapter", adapter, plugins.adapters)
    found = examine(known, host_folder)
    commit = commit_of(host_folder)
    if as_json:
        scripts = [diagnosis.to_json() for diagnosis in found]
        click.echo(json.dumps({"adapter": adapter, "host": str(host_folder), "commit": commit, "scripts": scripts}))
    else:
        click.echo(f"adapter {adapter} ({plugins.adapters[adapter].distribution}), for {known.host}")
        click.echo(f"host {host_folder}{f' at commit {commit[:7]}' if commit else ''}")
        for diagnosis in found:
            _show(diagnosis, host_folder)
    return GuardError.exit_code if any(diagnosis.problem for diagnosis in found) else 0


def _show(diagnosis: Diagnosis, folder: Path) -> None:
    click.echo(f"\n{diagnosis.profile.script}: {diagnosis.status}")
    for definition in diagnosis.definitions:
        file = os.path.relpath(definition.file, folder.resolve())
        click.echo(f"  {definition.seam.role:<9}{definition.seam.name:<24}{file}:{definition.line}")
    for fault in diagnosis.faults:
        click.echo(f"  known fault: {fault.describe()}; guard run --repair mends it in memory")


@cli.command("plugins")
@_json_option
def list_plugins(as_json: bool) -> None:
    """List adapters, penalties and attacks, each with the distribution that it comes from."""
    plugins = installed_plugins()
    kinds = {"adapters": plugins.adapters, "penalties": plugins.penalties, "attacks": plugins.attacks}
    if as_json:
        table = {kind: {name: r.distribution for name, r in found.items()} for kind, found in kinds.items()}
        click.echo(json.dumps(table))
        return
    for kind, found in kinds.items():
        click.echo(kind)
        for name, registered in found.items():
            click.echo(f"  {name:<16}{registered.distribution}")


@cli.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="guard-demo", show_default=True, help="Folder to write."
)
@click.option(
    "--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True, help="Which baseline of ours to run."
)
@click.option("--dataset", default=DemoSettings.dataset, show_default=True, help="digits, or FashionMNIST or CIFAR10.")
@click.option("--data", metavar="DIR", help="Folder of torchvision's data sets; digits needs none.")
@click.option("--arch", help="Network that distils, and students'.  [default: by data set]")
@click.option(
    "--ipc", type=_at_least_1, default=DemoSettings.ipc, show_default=True, help="Distilled images per class."
)
@click.option(
    "--experiments", type=_at_least_1, help="Distilled sets per arm, for --method dc.  [default: by data set]"
)
@click.option("--iterations", type=_at_least_1, help="Of the distillation.  [default: by method and data set]")
@click.option("--students", type=_at_least_1, help="Students per arm.  [default: by data set]")
@click.option("--attacks", default=DemoSettings.attacks, show_default=True, help="Attacks, comma separated.")
@click.option("--eps", default=DemoSettings.eps, show_default=True, help="Linf radius in pixel space.")
@click.option(
    "--n-examples",
    type=_at_least_1,
    default=DemoSettings.n_examples,
    show_default=True,
    help="Attack the first N test images.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=DemoSettings.seed, show_default=True, help="Seed of the distillation."
)
@_penalty_options
def demo(out: Path, **options: Any) -> None:
    """Distil small real images with a baseline and again under GUARD, attack students of both, and compare.

    Needs no network. Prints what it measures, whatever that is. A penalty that needs more than --strength, --h and
    --form (pgd_at, fast, trades) is one for guard run.
    """
    _refuse_penalties_without_options(options["penalty"])
    given = {key: value for key, value in options.items() if value is not None}
    run_demo(settings_for(**given), out, click.echo)


def _refuse_penalties_without_options(name: str | None) -> None:
    penalties = installed_plugins().penalties
    if name is None or name not in penalties:
        return  # the default, or a name whose refusal lists those that there are
    settings = signature(penalties[name].value).parameters.values()
    needed = [s.name for s in settings if s.default is s.empty and s.name not in ("strength", "h", "form")]
    if needed:
        raise UnusableInput(
            f"guard demo cannot run penalty {name!r}: it needs {', '.join(needed)}, for which the demo has no option; "
            f"use guard run --penalty {name}, with --set {needed[0]}=VALUE, and guard benchmark"
        )
