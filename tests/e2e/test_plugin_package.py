"""A third-party distribution, built and installed: its adapter and penalty show, and are used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.2.3"

[project.entry-points.guard_plugin]
tiny = "{module}"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""

PLUGIN = '''
"""An adapter for a host of one script, and a penalty of its own."""

from dataclasses import dataclass
from typing import ClassVar

import guard_plugin
from guard_plugin.injection import MODULE_LEVEL, Adapter, ExpectedCount, Profile, Seam
from guard_plugin.penalties import Penalty


@dataclass(frozen=True, kw_only=True)
class WeightNorm(Penalty):
    """strength * power-th power of the parameters' norm: independent of the data, so its value is known."""

    name: ClassVar[str] = "weight-norm"
    power: float = 2.0

    def __call__(self, network, inputs, targets, *, loss_fn):
        return self.strength * sum(p.abs().pow(self.power).sum() for p in network.parameters())


@guard_plugin.hookimpl
def register_adapters():
    train = Seam("train", MODULE_LEVEL, "opens")
    expected = ExpectedCount("train", lambda variables: variables["STEPS"], "STEPS")
    return [Adapter("tiny", "someone/tiny", (Profile("train.py", (train,), expected),
                                             Profile("report.py", unguarded="it trains nothing")))]


@guard_plugin.hookimpl
def register_penalties():
    return [WeightNorm]


@guard_plugin.hookimpl
def guarded_step(value):
    print("observed", float(value))


@guard_plugin.hookimpl
def run_started(ledger):
    print("started", ledger.script)


@guard_plugin.hookimpl
def run_ended(ledger):
    print("ended", ledger.outcome, ledger.guarded)
'''

TRAIN = """
import torch
STEPS = 3
net = torch.nn.Linear(2, 2)
torch.nn.init.ones_(net.weight), torch.nn.init.zeros_(net.bias)
for _ in range(STEPS):
    loss = torch.nn.CrossEntropyLoss()(net(torch.zeros(4, 2)), torch.tensor([0, 1, 0, 1]))
    print("loss", loss.item())
"""


def install(folder: Path, target: Path, *, name: str, module: str, source: str) -> None:
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name, module=module))
    (folder / f"{module}.py").write_text(source)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, str(folder)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("third-party")
    install(folder / "source", folder / "target", name="guard-tiny", module="guard_tiny", source=PLUGIN)
    return folder / "target"


def test_its_names_show_with_their_distribution(guard, target):
    table = json.loads(guard("plugins", "--json", PYTHONPATH=str(target)).stdout)
    assert table["adapters"]["tiny"] == "guard-tiny 1.2.3"
    assert table["penalties"]["weight-norm"] == "guard-tiny 1.2.3"
    assert table["adapters"]["dc"].startswith("guard-plugin ")
    printed = guard("plugins", PYTHONPATH=str(target)).stdout
    assert "guard-tiny 1.2.3" in printed and "official-autoattack  guard-plugin" in printed


def test_its_adapter_and_penalty_are_used(guard, target, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    options = ["--penalty", "weight-norm", "--strength", "0.5", "--ledger", "ledger.json"]
    done = guard("run", *options, "tiny", "train.py", PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "started train.py" and lines[-1] == "ended complete 3"
    assert lines.count("observed 2.0") == 3  # 0.5 * (1 + 1 + 1 + 1)
    assert [float(line.split()[1]) for line in lines if line.startswith("loss")] == [pytest.approx(2.693147)] * 3
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    settings = {"strength": 0.5, "strength_ramp": 0, "power": 2.0}
    assert ledger["penalty"] == {"name": "weight-norm", "combination": "added", **settings}
    assert ledger["versions"]["adapter"] == "guard-tiny 1.2.3"


def test_a_script_without_a_guarded_phase_runs_and_the_ledger_says_so(guard, target, tmp_path):
    (tmp_path / "report.py").write_text(TRAIN)
    done = guard("run", "--strength", "1", "--h", "1", "tiny", "report.py", PYTHONPATH=str(target))
    assert done.returncode == 0 and "it trains nothing" in done.stderr and "0 guarded" in done.stderr


def test_a_setting_that_a_penalty_has_not_is_refused(guard, target, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    options = ["--penalty", "weight-norm", "--strength", "0.5", "--h", "1"]
    done = guard("run", *options, "tiny", "train.py", PYTHONPATH=str(target))
    assert done.returncode == 2 and "penalty 'weight-norm' has no setting h" in done.stderr


def test_a_second_distribution_of_the_same_name_is_refused_naming_both(guard, target, tmp_path):
    install(tmp_path / "source", tmp_path / "second", name="guard-rival", module="guard_rival", source=PLUGIN)
    done = guard("plugins", PYTHONPATH=f"{target}:{tmp_path / 'second'}")
    assert done.returncode == 2
    assert "'tiny'" in done.stderr and "guard-tiny 1.2.3" in done.stderr and "guard-rival 1.2.3" in done.stderr


def test_a_misspelt_hook_is_refused_naming_hook_and_distribution(guard, tmp_path):
    source = PLUGIN.replace("def register_penalties", "def register_penalty")
    install(tmp_path / "source", tmp_path / "bad", name="guard-bad", module="guard_bad", source=source)
    done = guard("plugins", PYTHONPATH=str(tmp_path / "bad"))
    assert done.returncode == 2
    assert "guard-bad 1.2.3" in done.stderr and "'register_penalty'" in done.stderr
    assert "did you mean 'register_penalties'?" in done.stderr
