"""What docs/paper.md points at is there."""

import importlib
import re
import shlex

import pytest

from guard_plugin.attacks import PRESETS
from guard_plugin.cli import cli
from guard_plugin.plugins import Plugins
from tests.conftest import ROOT

DOCUMENT = ROOT / "docs" / "paper.md"
TEXT = DOCUMENT.read_text()
TABLE, _ = TEXT.split("## What our text lacks")
ROWS = [line.strip("| ").split(" | ") for line in TABLE.splitlines() if line.startswith("|")][2:]
SPANS = re.findall(r"`([^`]+)`", TEXT)
COMMANDS = sorted({span for span in SPANS if re.match(r"guard( |$)", span)})
FUNCTIONS = sorted({span for span in SPANS if span.startswith("guard_plugin.")})
LINKS = sorted(set(re.findall(r"\]\(([^)#:\s]+)\)", TEXT)))


def unknown_options(words, known):
    return [word for word in words if word.startswith("--") and word not in known]


def options_of(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_and_its_options_exist(line):
    _, name, *words = shlex.split(line)
    assert unknown_options(words, options_of(cli.commands[name])) == []


@pytest.mark.parametrize("line", COMMANDS)
def test_a_value_that_a_command_names_is_accepted(line):
    words = shlex.split(line)
    given = {option: value for option, value in zip(words, words[1:]) if not value.startswith("--")}
    known = {"--penalty": Plugins().penalties, "--attacks": PRESETS, "--form": ("gradient", "loss")}
    for option, values in known.items():
        assert given.get(option) is None or given[option] in values, f"{line}: {option}"


@pytest.mark.parametrize("path", FUNCTIONS)
def test_a_function_exists(path):
    module, _, name = path.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_to_a_file(link):
    assert (DOCUMENT.parent / link).is_file()


SCRIPTS = [span.removeprefix("python ") for span in SPANS if span.startswith("python ")]


def test_two_scripts_are_named():
    assert [line.split()[1] for line in SCRIPTS] == ["examples.overhead", "examples.reproduce"]


@pytest.mark.parametrize("line", SCRIPTS)
def test_a_script_and_its_options_exist(line):
    _, module, *words = shlex.split(line)
    file = ROOT.joinpath(*module.split("."), "__main__.py")
    assert unknown_options(words, re.findall(r'"(--[a-z-]+)"', file.read_text())) == []


def test_names_that_belong_to_a_function_exist():
    from guard_plugin.diagnostics import CurvatureReport

    (row,) = (row for row in ROWS if "Eq. 9" in row[0])
    fields = [span for span in re.findall(r"`([^`]+)`", row[1]) if span.isidentifier()]
    assert len(fields) == 3 and all(hasattr(CurvatureReport, f) or f in CurvatureReport.__annotations__ for f in fields)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:20])
def test_every_row_leads_somewhere(row):
    item, here = row
    assert item
    assert any(span in [*COMMANDS, *FUNCTIONS] or span.startswith("python ") for span in re.findall(r"`([^`]+)`", here))


KINDS = {"Eq.": range(6, 12), "Fig.": range(1, 4), "Table": range(1, 6)}
NUMBERED = [f"{kind} {number}" for kind, numbers in KINDS.items() for number in numbers]


@pytest.mark.parametrize("item", ["Proposition 1", "Algorithm 1", *NUMBERED])
def test_every_numbered_item_has_one_row(item):
    assert sum(re.search(rf"\b{re.escape(item)}\b", row[0]) is not None for row in ROWS) == 1


def test_the_adapters_named_are_registered():
    (row,) = (row for row in ROWS if "with the adapters" in row[1])
    names = re.search(r"with the adapters ([^`]+?), then", row[1]).group(1)
    commands = [line.split()[2] for line in COMMANDS if re.match("guard run [^-]", line)]
    assert len(commands) == 2 and {*re.split(r", | and ", names), *commands} <= set(Plugins().adapters)
