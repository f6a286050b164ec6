"""``guard run``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from guard_plugin.commands.options import Command, any_file, assigned, module_option, penalty_options
from guard_plugin.foreign_text import printable
from guard_plugin.injection.dry_run import describe
from guard_plugin.injection.launch import run_guarded
from guard_plugin.injection.plan import Plan
from guard_plugin.injection.processes.program import find_program

__all__ = ["run"]


class _RunCommand(Command):
    """Options may stand before ADAPTER and before SCRIPT (-m is one); what comes after SCRIPT belongs to the script."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        adapter = self._end_of_options(args, 0)
        script = self._end_of_options(args, adapter + 1)
        options = [*args[:adapter], *args[adapter + 1 : script]]
        return super().parse_args(ctx, [*options, *args[adapter : adapter + 1], *args[script:]])

    def _end_of_options(self, args: list[str], start: int) -> int:
        with_value = [name for p in self.params if isinstance(p, click.Option) and not p.is_flag for name in p.opts]
        while start < len(args) and args[start].startswith("-") and args[start] != "-":
            start += 2 if args[start] in with_value else 1
        return start


@click.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})
@penalty_options
@click.option("--h-ramp", type=int, help="Guarded loss calls over which h rises to its value.  [default: 0]")
@click.option("--strength-ramp", type=int, help="Guarded loss calls over which strength rises.  [default: 0]")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Another setting of the penalty.")
@click.option(
    "--memory",
    type=click.Choice(["normal", "low"]),
    help="low: compute the penalty in small parts of the batch, slower.  [default: normal]",
)
@click.option("--repair", is_flag=True, help="Mend the host's known faults, in memory.")
@click.option(
    "--teacher",
    type=any_file,
    help="Give this checkpoint to the script when it asks torchvision for pretrained weights.",
)
@click.option("--guard", multiple=True, metavar="MODULE:FUNCTION", help="For adapter auto: guard loss calls under it.")
@click.option("--suspend", multiple=True, metavar="MODULE:FUNCTION", help="For adapter auto: but not under this.")
@click.option(
    "--real",
    multiple=True,
    metavar="FILE:LINE",
    help="For adapter auto: this line's loss is on real data, though unclear.",
)
@click.option(
    "--made-by",
    multiple=True,
    metavar="WORDS",
    help="For adapter auto: only batches made by this are real data, as guard observe names it.",
)
@click.option("--expect", type=int, metavar="N", help="For adapter auto: how many loss calls must be guarded.")
@click.option("--dry-run", is_flag=True, help="Say what would be guarded, and how, and run nothing.")
@click.option("--ledger", type=any_file, help="Write the ledger to this JSON file.")
@click.option("--cwd", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Run in this folder.")
@module_option
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
    is_module: bool,
    dry_run: bool,
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
    program = find_program(script, is_module=is_module, folder=cwd)
    ledger = ledger.absolute() if ledger else None
    teacher = teacher.absolute() if teacher else None
    if cwd is not None:
        os.chdir(cwd)
        if not is_module and not Path(script).is_file():
            program = replace(program, name=str(program.file))
    if dry_run:
        plan = Plan.make(adapter, program.file.resolve(), program.folder, options, arguments)
        lines = describe(plan, arguments, repair=repair, teacher=teacher)
        head = f"{adapter} {plan.profile.script}: what a run would do; nothing is run"
        click.echo(printable("\n".join([head, *lines])))
        return 0
    return run_guarded(adapter, program, arguments, options, ledger_file=ledger, repair=repair, teacher=teacher)
