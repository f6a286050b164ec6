"""``python -m package.script``: observed, guarded and attached to as a script is."""

from __future__ import annotations

import json
import shlex

import pytest

TRAIN = """
import sys
import torch
from torch import nn
from .parts import LOSS
from package.networks import network


def fit(epochs):
    net = network()
    for _ in range(epochs):
        LOSS(net(torch.randn(4, 6)), torch.arange(4) % 3).backward()
    return net


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.save([p.grad for p in fit(int(sys.argv[1])).parameters()], "grads.pt")
    print(sys.argv[1:], __package__, __spec__.name, sys.argv[0] == __file__, sys.path[0])
"""


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("print('package imported')\n")
    (folder / "parts.py").write_text("from torch import nn\nLOSS = nn.CrossEntropyLoss()\n")
    (folder / "networks.py").write_text("from torch import nn\n\ndef network():\n    return nn.Linear(6, 3)\n")
    (folder / "train.py").write_text(TRAIN)
    (folder / "__main__.py").write_text("from package.train import fit\nfit(3)\n")
    return tmp_path


def test_a_module_gets_what_python_gives_it_and_strength_0_is_the_plain_run(python, guard, package):
    plain = python("-m", "package.train", "2")
    assert plain.returncode == 0, plain.stderr
    grads = (package / "grads.pt").read_bytes()
    done = guard("run", "--strength=0", "--h=1", "auto", "--guard", "package.train:fit", "-m", "package.train", "2")
    assert done.returncode == 0 and "2 on real data, left as they are" in done.stderr, done.stderr
    assert done.stdout == plain.stdout and (package / "grads.pt").read_bytes() == grads


def test_the_command_that_observe_proposes_guards_a_module(guard, package):
    done = guard("observe", "--json", "seen.json", "--adapter", "ours.py", "-m", "package.train", "3")
    assert done.returncode == 0 and "package/train.py:12" in done.stderr, done.stderr
    command = json.loads((package / "seen.json").read_text())["command"]
    assert command.endswith("auto --guard package.train:fit --expect 3 -m package.train 3")
    done = guard(*shlex.split(command)[1:])
    assert done.returncode == 0 and "auto package/train.py: 3 loss calls seen, 3 of 3 expected guarded" in done.stderr


def test_the_adapter_that_observe_writes_finds_its_seams_in_the_package(guard, python, package):
    guard("observe", "--adapter", "ours.py", "-m", "package.train", "3")
    done = python("-m", "pytest", "-q", "test_ours.py", GUARD_HOST=str(package))
    assert "1 passed" in done.stdout, done.stdout


def test_a_package_is_its_main(guard, package):
    done = guard("run", "--strength", "1", "--h", "1", "auto", "--guard", "package.train:fit", "-m", "package")
    assert done.returncode == 0 and "auto package/__main__.py: 3 loss calls seen, 3 guarded" in done.stderr, done.stderr


def test_a_module_that_is_not_there_is_refused(guard, package):
    done = guard("run", "--strength", "1", "--h", "1", "auto", "--guard", "package.train:fit", "-m", "package.tran")
    assert done.returncode == 2 and "expected -m MODULE, such as package.train" in done.stderr, done.stderr


def test_a_module_attaches_itself(python, package):
    attach = 'import guard_plugin\nguard_plugin.attach("auto", guard=["package.train:fit"], strength=1.0, h=1.0)\n'
    (package / "package" / "train.py").write_text(attach + TRAIN)
    done = python("-m", "package.train", "2")
    assert done.returncode == 0 and "2 loss calls seen, 2 guarded" in done.stderr, done.stderr
