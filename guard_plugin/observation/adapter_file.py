"""An adapter of the user's own, written from what was observed, with a test beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file
from guard_plugin.hosts.adapter import make_adapter
from guard_plugin.hosts.seams import MODULE_LEVEL, Definition, Seam, find_definitions
from guard_plugin.injection.processes.program import Program
from guard_plugin.observation.formula import explain
from guard_plugin.observation.proposal import Proposal
from guard_plugin.observation.sites import Function, Observation

__all__ = ["check_new", "write_adapter"]

_ADAPTER = '''"""The adapter {name}, for {script} of {host}.

Written by guard observe from one run. Read it: {count}

Install it with a pyproject.toml that holds

    [project]
    name = "guard-{name}"
    version = "0.1"
    [project.entry-points.guard_plugin]
    {name} = "{module}"
"""

import guard_plugin
from guard_plugin.hosts import {imports}

ADAPTER = Adapter(
    name="{name}",
    host="{host}",
    profiles=(
        Profile(
            script="{script}",{roots}
            seams=(
{seams}
            ),
            expected={expected},
        ),
    ),
    settings={{"gradient": {{"h": 3.0, "strength": 100.0}}}},
    settings_for=(3, 224, 224),
)


@guard_plugin.hookimpl
def register_adapters():
    return [ADAPTER]
'''

_TEST = '''"""The adapter {name} finds its seams in the host: GUARD_HOST names the host's folder."""

import os
from pathlib import Path

import pytest
from {module} import ADAPTER

HOST = os.environ.get("GUARD_HOST")


@pytest.mark.skipif(HOST is None, reason="GUARD_HOST names no folder")
@pytest.mark.parametrize("profile", ADAPTER.profiles, ids=lambda profile: profile.script)
def test_every_seam_is_there(profile):
    assert ADAPTER.locate(profile, Path(HOST) / profile.script)
'''


def check_new(file: Path) -> None:
    """Refuse, with UnusableInput, a file for the adapter that no module can be, or that is there."""
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise UnusableInput(f"expected --adapter FILE.py, named as a Python module is, got {file}")
    for one in (file, _test_of(file)):
        if one.exists():
            raise UnusableInput(f"{one} is there already: name another file, or move it away")


def write_adapter(file: Path, observation: Observation, proposal: Proposal, program: Program) -> None:
    """Write an adapter for a program, and its test, ``test_FILE.py``, beside it.

    Raises:
        UnusableInput: If nothing was proposed, or a seam is not found in the source.
    """
    if proposal.why_not:
        raise UnusableInput(f"no adapter was written: {proposal.why_not}")
    script, names = program.file.resolve(), Proposal.names
    described = make_adapter(
        script, folder=program.folder, guard=names(proposal.guard), suspend=names(proposal.suspend)
    )
    (profile,) = described.profiles
    found = described.locate(profile, script)
    told_by, formulas = _explained(observation, proposal)
    expected, in_words = "None", " or ".join(map(_in_words, formulas[:6]))
    count = "the number of losses that must be guarded is not known, so that one is enough for it."
    if len(formulas) == 1:
        if told_by not in proposal.guard:
            seam = Seam(*told_by, "tells", parameters=None)
            found += find_definitions(seam, script, profile.import_roots(script))
        expected = f'ExpectedCount("{".".join(told_by)}", lambda v: {formulas[0]}, "{in_words}")'
        count = f"it explains the {proposal.expect} losses of that run as {in_words}."
    elif formulas:
        count += (
            f"\nThe {proposal.expect} losses of that run may be {in_words}:\nobserve again, with arguments that differ."
        )
    seams = textwrap.indent("\n".join(map(_seam, found)), " " * 16)
    used = _ADAPTER + seams + expected
    imported = [name for name in ("MODULE_LEVEL", "Adapter", "ExpectedCount", "Profile", "Seam") if name in used]
    words = {
        "name": file.stem.removeprefix("guard_").replace("_", "-"),
        "module": file.stem,
        "script": profile.script,
        "host": program.folder.name,
        "roots": f"\n            roots={_tuple(profile.roots)}," if profile.roots else "",
        "count": count,
        "seams": seams,
        "expected": expected,
        "imports": ", ".join(imported),
    }
    for path, template in ((file, _ADAPTER), (_test_of(file), _TEST)):
        with atomic_file(path) as stream:
            stream.write(template.format(**words).encode())


def _explained(observation: Observation, proposal: Proposal) -> tuple[Function, list[str]]:
    """Explain the number of losses by the variables of one function on their stack, the outermost that can."""
    for function, numbers in observation.numbers.items():
        formulas = [] if proposal.expect is None else explain(proposal.expect, numbers)
        if formulas and function[1] != MODULE_LEVEL:
            return function, formulas
    return ("", ""), []


def _test_of(file: Path) -> Path:
    return file.with_name(f"test_{file.name}")


def _seam(definition: Definition) -> str:
    seam = definition.seam
    function = "MODULE_LEVEL" if seam.function == MODULE_LEVEL else f'"{seam.function}"'
    return f'Seam("{seam.module}", {function}, "{seam.role}", parameters={_tuple(definition.parameters)}),'


def _tuple(names: Sequence[str]) -> str:
    return "(" + ", ".join(f'"{name}"' for name in names) + ("," if len(names) == 1 else "") + ")"


def _in_words(formula: str) -> str:
    return formula.replace("v['", "").replace("']", "")
