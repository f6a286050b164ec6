"""The adapters "sre2l" and "cda" on unmodified clones in GUARD_HOSTS: SRe2L and tiny-imagenet."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.seam_mutations import check
from tests.upstream.conftest import SHARED, materialize
from tests.versions import load_own

HOSTS = Path(os.environ.get("GUARD_HOSTS", "/nowhere"))
SRE2L, TINY = HOSTS / "SRe2L", HOSTS / "tiny-imagenet"


@dataclass(frozen=True)
class Squeeze:
    """A clone, its script, arguments, and how many loss calls these make on real data and in evaluation."""

    host: Path
    script: str
    arguments: str
    guarded: int
    suspended: int
    checkpoint: str
    key: str


CIFAR = Squeeze(
    SRE2L, "SRe2L/*small_dataset/squeeze_cifar.py", "--epochs 2 --output-dir save", 4, 2, "ckpt.pth", "state_dict"
)
RESNET = Squeeze(
    TINY,
    "classification/train.py",
    "--device cpu --model resnet18 --batch-size 16 --epochs 1 --workers 0 --output-dir save --label-smoothing 0.1",
    4,
    2,
    "checkpoint.pth",
    "model",
)

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        not (SRE2L.is_dir() and TINY.is_dir()), reason="GUARD_HOSTS names no folder with clones of SRe2L, tiny-imagenet"
    ),
]

SETTINGS = ["--strength", "1", "--h", "0.43", "--ledger", "ledger.json"]

FROZEN = """
import random
import numpy, torch
random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
exec(open({offline!r}).read())
"""


@pytest.fixture
def data(tmp_path) -> Path:
    """Both data sets in ./data, where the hosts look; every process begins with the same seeds."""
    for layout, train, test in (("cifar100", 24, 8), ("tinyimagenet", 6, 3)):
        materialize(layout, tmp_path / "data", train=train, test=test)
    (tmp_path / "frozen").mkdir()
    offline = str(SHARED / "offline" / "sitecustomize.py")
    (tmp_path / "frozen" / "sitecustomize.py").write_text(FROZEN.format(offline=offline))
    return tmp_path


@pytest.fixture
def run(guard, data):
    def run(squeeze: Squeeze, *options: str, extra: str = "", adapter: str = "sre2l"):
        arguments = shlex.split(squeeze.arguments + " " + extra)
        environment = {"PYTHONPATH": str(data / "frozen"), "WANDB_MODE": "disabled"}
        return guard("run", *options, adapter, squeeze.host / squeeze.script, *arguments, **environment)

    return run


def calls(folder: Path) -> dict:
    return json.loads((folder / "ledger.json").read_text())["loss_calls"]


@pytest.mark.parametrize("form", ["gradient", "loss"])
@pytest.mark.parametrize("squeeze", [CIFAR, RESNET], ids=lambda squeeze: squeeze.host.name)
def test_each_training_batch_is_guarded(run, tmp_path, squeeze, form):
    done = run(squeeze, *SETTINGS, "--form", form)
    assert done.returncode == 0, done.stderr
    found = calls(tmp_path)
    assert found["guarded"] == found["expected"] == squeeze.guarded
    assert list(found["skipped"].values()) == [squeeze.suspended]
    assert (tmp_path / "save" / f"{squeeze.checkpoint}.guard.json").is_file()
    git = ["git", "-C", squeeze.host, "status", "--porcelain"]
    assert subprocess.run(git, capture_output=True, text=True, check=True).stdout == ""


def test_mixup_cutmix_and_moving_averages(run, tmp_path):
    extra = "--cutmix-alpha 1 --mixup-alpha 0.2 --model-ema --clip-grad-norm 1"
    done = run(RESNET, *SETTINGS, "--form", "loss", extra=extra)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path)["guarded"] == 4 and calls(tmp_path)["skipped"] == {"suspended: train.evaluate": 4}


@pytest.mark.parametrize("squeeze", [CIFAR, RESNET], ids=lambda squeeze: squeeze.host.name)
def test_strength_zero_is_the_plain_run_bit_for_bit(run, data, tmp_path, environment, squeeze):
    environment = {**environment, "PYTHONPATH": str(data / "frozen"), "WANDB_MODE": "disabled"}
    plain = [sys.executable, squeeze.host / squeeze.script, *shlex.split(squeeze.arguments), "--output-dir", "plain"]
    subprocess.run(plain, check=True, capture_output=True, env=environment, cwd=tmp_path)
    for strength in ("0", "5"):
        options = ["--repair", "--strength", strength, "--form", "loss"]
        done = run(squeeze, *options, extra=f"--output-dir {strength}", adapter="cda")
        assert done.returncode == 0, done.stderr
    plain, zero, five = (
        load_own(tmp_path / folder / squeeze.checkpoint)[squeeze.key] for folder in ("plain", "0", "5")
    )
    assert plain.keys() == zero.keys() and all(torch.equal(plain[name], zero[name]) for name in plain)
    assert not all(torch.equal(plain[name], five[name]) for name in plain)
    tracked = [name for name in plain if name.endswith("num_batches_tracked")]
    assert tracked and all(torch.equal(plain[name], five[name]) for name in tracked)


def test_what_has_nothing_to_guard_says_so(run, tmp_path):
    assert run(CIFAR, "--strength", "0", extra="--epochs 1").returncode == 0
    done = run(CIFAR, *SETTINGS, extra="--check-ckpt save/ckpt.pth")
    assert done.returncode == 0 and "nothing to guard here: it only reads a checkpoint" in done.stderr
    done = run(RESNET, *SETTINGS, extra="--test-only")
    assert done.returncode == 0 and "nothing to guard here: it only tests a network" in done.stderr


def test_recover_gets_the_teacher_that_it_asks_for(guard, data, tmp_path):
    """The host needs CUDA; it asks for its teacher before."""
    models = pytest.importorskip("torchvision.models")
    torch.save(models.resnet18().state_dict(), tmp_path / "guarded.pth")
    script = SRE2L / "SRe2L" / "recover" / "data_synthesis.py"
    options = ["--teacher", "guarded.pth", "--ledger", "ledger.json"]
    done = guard("run", *options, "sre2l", script, "--arch-name", "resnet18", "--exp-name", "x")
    assert done.returncode == (0 if torch.cuda.is_available() else 1) and "cuda" in done.stderr.lower()
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["teacher"]["given_for"] == ["ResNet18_Weights.IMAGENET1K_V1"]
    done = guard("run", *options, "sre2l", script, "--arch-name", "resnet50", "--exp-name", "x")
    assert done.returncode == 2 and "is another network" in done.stderr


@pytest.mark.parametrize(("adapter", "host"), [("sre2l", SRE2L), ("cda", SRE2L), ("sre2l", TINY), ("cda", TINY)])
def test_doctor_knows_every_script(guard, adapter, host):
    done = guard("doctor", adapter, host)
    assert done.returncode == 0 and ": guarded" in done.stdout and "runs as it is" in done.stdout


@pytest.mark.parametrize("squeeze", [CIFAR, RESNET], ids=lambda squeeze: squeeze.host.name)
def test_forks_without_a_seam_are_refused(squeeze, tmp_path):
    wrong = {what: why for what, why in check("sre2l", squeeze.host, squeeze.script, ["--help"], tmp_path) if why}
    assert not wrong
