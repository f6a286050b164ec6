"""Notebooks: the training of a host in a cell, by IPython itself."""

from __future__ import annotations

import json

import pytest

HOST = """
import torch
from torch import nn


def train(steps=3):
    torch.manual_seed(0)
    net = nn.Linear(6, 3)
    for _ in range(steps):
        nn.CrossEntropyLoss()(net(torch.randn(4, 6)), torch.arange(4) % 3).backward()
    return net.weight.grad.norm().item()
"""

ATTACH = 'guard_plugin.attach("auto", script="host.py", guard=["host:train"], strength=9.0, h=1.0)'
BLOCK = f"with {ATTACH} as g:\n    found = host.train()\n(found, g.ledger.guarded, g.ledger.outcome)"
WRAP = """
torch.manual_seed(0)
net = torch.nn.Linear(6, 3)
criterion = guard_plugin.wrap(torch.nn.CrossEntropyLoss(), net, strength=9.0, h=1.0)
for _ in range(3):
    criterion(net(torch.randn(4, 6)), torch.arange(4) % 3).backward()
(net.weight.grad.norm().item(), criterion.guarded)
"""

# A kernel's __main__ is no file, and its arguments are not the script's.
RUN = """
import json, sys, warnings
warnings.simplefilter("error", UserWarning)
sys.argv = ["ipykernel_launcher.py", "-f", "kernel.json"]
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
sys.modules["__main__"] = shell.user_module
results = []
for cell in json.load(open("cells.json")):
    done = shell.run_cell(cell)
    error = done.error_before_exec or done.error_in_exec
    results.append(f"{type(error).__name__}: {error}" if error else done.result)
json.dump(results, open("results.json", "w"))
"""


@pytest.fixture
def cells(python, tmp_path):
    """Run cells one after the other; return what each evaluates to, or its error."""
    pytest.importorskip("IPython")
    (tmp_path / "host.py").write_text(HOST)

    def run(*sources: str) -> list:
        (tmp_path / "cells.json").write_text(json.dumps(["import torch, guard_plugin, host", *sources]))
        (tmp_path / "run.py").write_text(RUN)
        done = python("run.py")
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "results.json").read_text())[1:]

    return run


def test_a_block_guards_exactly_and_its_cell_can_be_run_again(cells):
    plain, first, again, after = cells("host.train()", BLOCK, BLOCK, "host.train()")
    assert first[1:] == [3, "complete"] and first == again
    assert first[0] > 1.01 * plain and after == plain


def test_attach_without_a_block_is_refused_before_the_first_step_and_leaves_nothing(cells):
    attached, trained, block = cells(f"g = {ATTACH}", "host.train()", BLOCK)
    assert attached is None and trained.startswith("UnusableInput: expected the training to be in a block")
    assert block[1:] == [3, "complete"]


def test_training_that_is_written_in_cells_is_to_be_wrapped(cells):
    refused, first, again = cells('guard_plugin.attach("auto", guard=["host:train"], strength=1.0, h=1.0)', WRAP, WRAP)
    assert refused.startswith("UnusableInput: expected a script to guard, found an interactive session")
    assert first[1] == 3 and first == again


def test_an_error_in_a_block_ends_it(cells):
    failed, block = cells(BLOCK.replace("train()", "train(steps='x')"), BLOCK)
    assert failed.startswith("TypeError") and block[1:] == [3, "complete"]


def test_a_block_in_which_nothing_was_guarded_is_an_error(cells):
    (failed,) = cells(f"with {ATTACH}:\n    pass")
    assert failed.startswith("NothingGuarded: expected loss calls on real data")
