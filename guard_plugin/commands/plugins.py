"""``guard plugins``."""

import click

from guard_plugin.commands.options import json_option, show
from guard_plugin.plugins import installed_plugins

__all__ = ["list_plugins"]


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
