"""The examples in docstrings give what they show."""

import doctest
import importlib

import pytest

from tests.conftest import ROOT

FILES = [*ROOT.glob("guard_plugin/**/*.py"), *ROOT.glob("adapters/guard_adapters/**/*.py")]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removeprefix("adapters.")
    for file in FILES
    if ">>> " in file.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_show(name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0 and failed == 0


def test_examples_are_found():
    assert "guard_plugin.penalties.curvature" in MODULES
