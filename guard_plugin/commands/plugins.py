"""``guard plugins`` and ``guard doctor``: what is installed, and whether it fits a host."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from guard_plugin.commands.options import any_path, json_option, show
from guard_plugin.errors import GuardError
from guard_plugin.hosts.doctor import Diagnosis, commit_of, examine
from guard_plugin.plugins import installed_plugins, look_up

__all__ = ["doctor", "list_plugins"]


@click.command("plugins")
@json_option
def list_plugins(as_json: bool) -> None:
    """List adapters, penalties and attacks, each with the distribution that it comes from."""
    plugins = installed_plugins()
    kinds = {"adapters": plugins.adapters, "penalties": plugins.penalties, "attacks": plugins.attacks}
    found = {kind: {name: r.distribution for name, r in registered.items()} for kind, registered in kinds.items()}
    lines = []
    for kind, distributions in found.items():
        lines += [kind, *(f"  {name:<16}{distribution}" for name, distribution in distributions.items())]
    show(found, "\n".join(lines), as_json)


@click.command()
@json_option
@click.argument("adapter")
@click.argument("host_folder", type=any_path)
def doctor(adapter: str, host_folder: Path, as_json: bool) -> int:
    """Check that HOST_FOLDER has the seams that ADAPTER needs, running nothing. Exit code 0, or 2 if one is missing."""
    plugins = installed_plugins()
    known = look_up("adapter", adapter, plugins.adapters)
    found, commit = examine(known, host_folder), commit_of(host_folder)
    scripts = [diagnosis.to_json() for diagnosis in found]
    lines = [
        f"adapter {adapter} ({plugins.adapters[adapter].distribution}), for {known.host}",
        f"host {host_folder}{f' at commit {commit[:7]}' if commit else ''}",
        *(line for diagnosis in found for line in _lines(diagnosis, host_folder.resolve())),
    ]
    report = {"adapter": adapter, "host": str(host_folder), "commit": commit, "scripts": scripts}
    show(report, "\n".join(lines), as_json)
    return GuardError.exit_code if any(diagnosis.problem for diagnosis in found) else 0


def _lines(diagnosis: Diagnosis, folder: Path) -> Iterator[str]:
    yield f"\n{diagnosis.profile.script}: {diagnosis.status}"
    for definition in diagnosis.definitions:
        file = os.path.relpath(definition.file, folder)
        yield f"  {definition.seam.role:<9}{definition.seam.name:<24}{file}:{definition.line}"
    for fault in diagnosis.faults:
        yield f"  known fault: {fault.describe()}; guard run --repair mends it in memory"
