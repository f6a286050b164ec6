"""``guard observe`` on unmodified clones that have no adapter, and docs/your-own-host.md's commands on one of them."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.upstream.conftest import SHARED, materialize

HOSTS = Path(os.environ.get("GUARD_HOSTS", "/nowhere"))
DC = "--dataset CIFAR10 --model MLP --ipc 1 --num_exp 1 --num_eval 1 --epoch_eval_train 1 --Iteration 1 --batch_real 16"
EXPERTS = "--dataset CIFAR10 --model ConvNet --train_epochs 1 --num_experts 1 --batch_train 64 --batch_real 64"

# Folder of the clone, script, its arguments, what is proposed, and how many losses are guarded.
SCRIPTS = {
    "low-rank images": (
        "An-Efficient-Dataset-Condensation-Plugin/main_LoDC.py",
        f"{DC} --save_path OUT/",
        "--guard main_LoDC:main --suspend utils:epoch",
        20,
    ),
    "trajectories": ("seqmatch/seqmatch-mtt/buffer.py", f"{EXPERTS} --buffer_path OUT", "--guard utils:epoch", 5),
    "DC, which has an adapter": (
        "DatasetCondensation/main.py",
        f"{DC} --save_path OUT",
        "--guard main:main --suspend utils:epoch",
        20,
    ),
    "MTT, which has an adapter": (
        "mtt-distillation/buffer.py",
        f"{EXPERTS} --buffer_path OUT",
        "--guard utils:epoch",
        5,
    ),
}

pytestmark = pytest.mark.upstream


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    materialize("cifar10", folder, train=32, test=10)
    return folder


def host_of(script: str) -> Path:
    if not (HOSTS / script).is_file():
        pytest.skip(f"GUARD_HOSTS names no folder with {script}")
    return (HOSTS / script).parent


@pytest.mark.parametrize(("script", "arguments", "seams", "guarded"), SCRIPTS.values(), ids=SCRIPTS)
def test_what_observe_proposes_guards_exactly(guard, data, tmp_path, script, arguments, seams, guarded):
    host, offline = host_of(script), {"PYTHONPATH": str(SHARED / "offline"), "WANDB_MODE": "disabled"}
    given = [*shlex.split(arguments.replace("OUT", str(tmp_path / "out"))), "--data_path", data]
    done = guard("observe", "--json", tmp_path / "seen.json", Path(script).name, *given, cwd=host, **offline)
    assert done.returncode == 0, done.stderr
    command = json.loads((tmp_path / "seen.json").read_text())["command"]
    assert f"{seams} --expect {guarded} " in command
    proposed = shlex.split(command.replace(str(tmp_path / "out"), str(tmp_path / "again")))[1:]
    done = guard(*proposed, cwd=host, **offline)
    assert done.returncode == 0 and f"{guarded} of {guarded} expected guarded" in done.stderr, done.stderr


def test_the_page_about_ones_own_host(guard, data, tmp_path):
    """Its commands, in order; DATA and OUT are the reader's own folders."""
    host = host_of("An-Efficient-Dataset-Condensation-Plugin/main_LoDC.py")
    text = (ROOT / "docs" / "your-own-host.md").read_text().split("## The whole way")[1]
    commands = re.findall(r"^    guard ((?:.*\\\n)*.*)$", text, flags=re.M)
    assert [command.split()[0] for command in commands] == ["doctor", "observe", "run", "benchmark"]
    expected = {"doctor": 2}  # no adapter fits
    for command in commands:
        text = command.replace("\\\n", " ").replace("DATA", str(data)).replace("OUT", str(tmp_path / "out"))
        words = [str(next(Path("/").glob(word[1:]))) if "*" in word else word for word in text.split()]
        done = guard(*words, cwd=host, PYTHONPATH=str(SHARED / "offline"))
        assert done.returncode == expected.get(words[0], 0), done.stderr
    assert "mean" in done.stdout
