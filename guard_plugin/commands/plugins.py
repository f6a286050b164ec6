"""``guard plugins`` and ``guard doctor``: what is installed, and whether it fits a host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from guard_plugin.commands.options import Command, json_option, show
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.hosts.adapter import AUTO, make_adapter
from guard_plugin.hosts.doctor import Diagnosis, examine, fitting
from guard_plugin.hosts.work_tree import commit_of
from guard_plugin.plugins import installed_plugins, look_up

__all__ = ["doctor", "list_plugins"]


@click.command("plugins", cls=Command)
@json_option
def list_plugins(as_json: bool) -> None:
    """List adapters, penalties and attacks, each with the distribution that it comes from."""
    plugins = installed_plugins()
    kinds = {"adapters": plugins.adapters, "penalties": plugins.penalties, "attacks": plugins.attacks}
    found = {kind: {name: r.distribution for name, r in registered.items()} for kind, registered in kinds.items()}
    lines, width = [], max(len(name) for names in found.values() for name in names)
    for kind, distributions in found.items():
        lines += [kind, *(f"  {name:<{width}}  {distribution}" for name, distribution in distributions.items())]
    show(found, "\n".join(lines), as_json)


@click.command(cls=Command)
@json_option
@click.option("--guard", multiple=True, metavar="MODULE:FUNCTION", help="For adapter auto: as guard run takes it.")
@click.option("--suspend", multiple=True, metavar="MODULE:FUNCTION", help="For adapter auto: as guard run takes it.")
@click.argument("words", nargs=-1, metavar="[ADAPTER] HOST")
def doctor(words: tuple[str, ...], guard: tuple[str, ...], suspend: tuple[str, ...], as_json: bool) -> int:
    """Check that the folder HOST has the seams that ADAPTER needs, running nothing.

    Without ADAPTER, say which adapters fit the folder. For ADAPTER auto, HOST is the script, and --guard and --suspend
    name the seams. Exit code 0, or 2 if a seam is missing or nothing fits.
    """
    if len(words) not in (1, 2):
        raise UnusableInput(f"expected guard doctor [ADAPTER] HOST, got {len(words)} arguments")
    adapter, host = words[0], Path(words[-1])
    if len(words) == 1:
        return _which_fits(host, as_json)
    if adapter == AUTO:
        if not host.is_file():
            raise UnusableInput(f"expected the script that adapter auto is to guard, found no file {host}")
        known = make_adapter(host.resolve(), guard=guard, suspend=suspend)
        distribution, host = "described on the command line", host.resolve().parent
    else:
        if guard or suspend:
            raise UnusableInput(f"--guard, --suspend: for adapter auto only; {adapter} knows its seams")
        plugins = installed_plugins()
        known, distribution = look_up("adapter", adapter, plugins.adapters), plugins.adapters[adapter].distribution
    found, commit = examine(known, host), commit_of(host)
    scripts = [diagnosis.to_json() for diagnosis in found]
    lines = [
        f"adapter {adapter} ({distribution}), for {known.host}",
        f"host {host}{f' at commit {commit[:7]}' if commit else ''}",
        *(line for diagnosis in found for line in _lines(diagnosis, host.resolve())),
    ]
    show({"adapter": adapter, "host": str(host), "commit": commit, "scripts": scripts}, "\n".join(lines), as_json)
    return GuardError.exit_code if any(diagnosis.problem for diagnosis in found) else 0


def _which_fits(host: Path, as_json: bool) -> int:
    """Say which adapters have scripts in a folder, and what stands in the way of those that nearly fit."""
    if not host.is_dir():
        raise UnusableInput(f"no such folder: {host}")
    found = fitting([one.value for one in installed_plugins().adapters.values()], host)
    fit = [name for name, scripts in found.items() if not any(diagnosis.problem for diagnosis in scripts)]
    lines = [f"{name} fits: guard doctor {name} {host}" for name in fit]
    for name, scripts in found.items():
        if name not in fit:
            lines.append(f"{name} nearly fits:")
            lines += [f"  {one.profile.script}: {one.problem}" for one in scripts if one.problem]
    if not fit:
        lines.append(f"no adapter fits {host}: guard observe SCRIPT says where GUARD belongs in one of its scripts")
    report = {name: [diagnosis.to_json() for diagnosis in scripts] for name, scripts in found.items()}
    show({"host": str(host), "fits": fit, "adapters": report}, "\n".join(lines), as_json)
    return 0 if fit else GuardError.exit_code


def _lines(diagnosis: Diagnosis, folder: Path) -> Iterator[str]:
    yield f"\n{diagnosis.profile.script}: {diagnosis.status}"
    for definition in diagnosis.definitions:
        file = os.path.relpath(definition.file, folder)
        yield f"  {definition.seam.role:<9}{definition.seam.name:<24}{file}:{definition.line}"
    for fault in diagnosis.faults:
        yield f"  known fault: {fault.describe()}; guard run --repair mends it in memory"
