"""``guard observe``."""

from __future__ import annotations

from pathlib import Path

import click

from guard_plugin.commands.options import Command, any_path, at_least_1, module_option
from guard_plugin.files import write_json
from guard_plugin.foreign_text import tell
from guard_plugin.injection.processes.program import find_program
from guard_plugin.observation import observe_program, propose
from guard_plugin.observation.adapter_file import check_new, write_adapter
from guard_plugin.observation.report import report

__all__ = ["observe"]


@click.command(cls=Command, context_settings={"allow_interspersed_args": False})
@click.option("--calls", type=at_least_1, help="Stop after so many losses.  [default: run to the end]")
@click.option(
    "--adapter", type=any_path, metavar="FILE.py", help="Write an adapter of your own, and its test beside it."
)
@click.option("--json", "json_file", type=any_path, help="Write what was seen to this JSON file, too.")
@module_option
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[SCRIPT ARGS]...")
def observe(
    script: str,
    arguments: tuple[str, ...],
    calls: int | None,
    adapter: Path | None,
    json_file: Path | None,
    is_module: bool,
) -> int:
    """Run SCRIPT as it is, and say where GUARD belongs in it: the command `guard run auto` that guards it.

    For a host without an adapter. Nothing that the script computes is changed. The report goes to stderr. Exit code:
    the script's own if it failed, else 0.
    """
    program = find_program(script, is_module=is_module)
    json_file = json_file.absolute() if json_file else None
    adapter = adapter.absolute() if adapter else None
    if adapter is not None:
        check_new(adapter)
    observation, code = observe_program(program, arguments, calls=calls)
    proposal = propose(observation)
    tell(report(observation, proposal, [*program.words, *arguments]))
    if json_file is not None:
        found = {**observation.to_json(), "why_not": proposal.why_not, "notes": list(proposal.notes)}
        found["command"] = None if proposal.why_not else proposal.command([*program.words, *arguments])
        write_json(json_file, found)
    if adapter is not None:
        write_adapter(adapter, observation, proposal, program)
        tell(f"the adapter is in {adapter}, its test beside it")
    return code
