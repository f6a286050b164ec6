"""The DC adapter on an unmodified clone of VICO-UoE/DatasetCondensation: GUARD_HOSTS/DatasetCondensation."""

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.mutations import GUARDED, REFUSED_DURING
from tests.seam_mutations import check
from tests.upstream.conftest import SHARED, materialize
from tests.versions import load_own

HOST = Path(os.environ.get("GUARD_HOSTS", "/nowhere")) / "DatasetCondensation"

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not HOST.is_dir(), reason="GUARD_HOSTS names no folder with a clone of DatasetCondensation"),
]

SETTINGS = ["--strength", "1", "--h", "0.43", "--ledger", "ledger.json"]

# The host reseeds torch from the clock: both runs get the same clock and the same seeds.
FROZEN = """
import time, random
time.time = lambda: 1.7e9
import numpy, torch
random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
exec(open({offline!r}).read())
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    materialize("cifar10", folder, train=32, test=10)
    (folder / "frozen").mkdir()
    offline = str(SHARED / "offline" / "sitecustomize.py")
    (folder / "frozen" / "sitecustomize.py").write_text(FROZEN.format(offline=offline))
    return folder


@pytest.fixture
def arguments(data, tmp_path) -> list[str]:
    common = "--dataset CIFAR10 --model MLP --ipc 10 --num_exp 1 --num_eval 0 --Iteration 0 --batch_real 32"
    return [*shlex.split(common), "--data_path", str(data), "--save_path", str(tmp_path / "out")]


@pytest.fixture
def run(guard, data):
    def run(*options: object, frozen: bool = False, **extra: object):
        path = data / "frozen" if frozen else SHARED / "offline"
        return guard("run", *options, PYTHONPATH=str(path), **extra)

    return run


@pytest.fixture
def fork(tmp_path) -> Path:
    folder = tmp_path / "fork"
    shutil.copytree(HOST, folder, ignore=shutil.ignore_patterns(".git"))
    return folder


def calls(folder: Path) -> dict:
    return json.loads((folder / "ledger.json").read_text())["loss_calls"]


@pytest.mark.parametrize(
    ("extra", "guarded"),
    [
        ("--num_eval 1", 10 * 10),
        ("--model ConvNet --ipc 1 --Iteration 1", 2 * 10),
        ("--model ConvNetBN --ipc 1 --Iteration 1 --num_exp 2", 2 * 2 * 10),
        ("--method DSA --dsa_strategy color_crop_cutout_flip_scale_rotate --init real", 10 * 10),
    ],
)
@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_exactly_the_real_loss_calls_are_guarded(run, arguments, tmp_path, extra, guarded, form):
    done = run(*SETTINGS, "--form", form, "dc", HOST / "main.py", *arguments, *shlex.split(extra))
    assert done.returncode == 0, done.stderr
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert (ledger["loss_calls"]["guarded"], ledger["loss_calls"]["expected"]) == (guarded, guarded)
    assert ledger["sites"]["main.py:191"] == {"seen": guarded, "guarded": guarded}
    assert ledger["penalty_value"]["nonfinite"] == 0
    status = subprocess.run(["git", "status", "--porcelain"], cwd=HOST, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_strength_zero_is_the_plain_run_bit_for_bit(run, arguments, data, tmp_path, environment):
    arguments = [*arguments[:-1], str(tmp_path / "plain"), "--num_eval", "1"]
    environment = {**environment, "PYTHONPATH": str(data / "frozen")}
    subprocess.run(
        [sys.executable, str(HOST / "main.py"), *arguments], env=environment, check=True, capture_output=True
    )
    for strength, folder in (("0", "zero"), ("100", "hundred")):
        save = ["--save_path", str(tmp_path / folder)]
        done = run("--strength", strength, "--h", "0.43", "dc", HOST / "main.py", *arguments, *save, frozen=True)
        assert done.returncode == 0, done.stderr
    plain, zero, hundred = (
        load_own(tmp_path / folder / "res_DC_CIFAR10_MLP_10ipc.pt") for folder in ("plain", "zero", "hundred")
    )
    assert torch.equal(plain["data"][0][0], zero["data"][0][0]) and plain["accs_all_exps"] == zero["accs_all_exps"]
    assert not torch.equal(plain["data"][0][0], hundred["data"][0][0])


# The host's own evaluation of a distilled file: five networks trained and tested by its evaluate_synset.
HOSTS_EVALUATION = """
import sys, types, torch
from utils import ParamDiffAug, get_dataset, get_network, evaluate_synset
data, file = sys.argv[1:]
channel, size, classes, _, _, _, _, _, testloader = get_dataset("CIFAR10", data)
images, labels = torch.load(file, weights_only=False)["data"][0]
dsa = "res_DSA" in file
args = types.SimpleNamespace(device="cpu", lr_net=0.01, epoch_eval_train=1000 if dsa else 300, batch_train=256, dsa=dsa,
                             dc_aug_param={"strategy": "none"}, dsa_param=ParamDiffAug(),
                             dsa_strategy="color_crop_cutout_flip_scale_rotate")
torch.set_num_threads(1)
for k in range(5):
    net = get_network("MLP", channel, classes, size)
    print("ACCURACY", evaluate_synset(k, net, images, labels, testloader, args)[2])
"""


@pytest.mark.parametrize("method", ["DC", "DSA"])
def test_what_it_writes_is_benchmarked_as_the_host_evaluates_it(
    run, guard, arguments, data, tmp_path, environment, method
):
    method_of = ["--init", "real", "--method", method, "--dsa_strategy", "color_crop_cutout_flip_scale_rotate"]
    assert run(*SETTINGS, "dc", HOST / "main.py", *arguments, *method_of).returncode == 0
    options = shlex.split(f"--data {data} --adapter dc --attacks fgsm,pgd5 --eps 1/255 --n-examples 100 --seeds 5")
    file = tmp_path / "out" / f"res_{method}_CIFAR10_MLP_10ipc.pt"
    done = guard("benchmark", "--out", "b", "--distilled", file, *options, PYTHONPATH=str(SHARED / "offline"))
    assert done.returncode == 0, done.stderr
    accuracy = json.loads((tmp_path / "b" / "results.json").read_text())["accuracy"]
    assert accuracy["worst_case"]["mean"] <= accuracy["pgd5"]["mean"] <= accuracy["clean"]["mean"]
    command = [sys.executable, "-c", HOSTS_EVALUATION, str(data), str(file)]
    environment = {**environment, "PYTHONPATH": f"{SHARED / 'offline'}:{HOST}"}
    hosts = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    theirs = [float(line.split()[1]) for line in hosts.splitlines() if line.startswith("ACCURACY")]
    ours = accuracy["clean"]["per_seed"]
    spread = (statistics.variance(ours) + statistics.variance(theirs)) / 5
    assert abs(statistics.mean(ours) - statistics.mean(theirs)) <= 4 * spread**0.5 + 0.01, (ours, theirs)


def test_doctor_finds_every_seam(guard):
    done = guard("doctor", "dc", HOST)
    assert done.returncode == 0
    for line in ("main.main", "utils.epoch", "utils.evaluate_synset"):
        assert line in done.stdout
    assert "main_DM.py: refused" in done.stdout and "CL_DM.py: refused" in done.stdout


@pytest.mark.parametrize("script", ["main_DM.py", "CL_DM.py"])
def test_distribution_matching_is_refused_with_the_reason(run, script):
    done = run(*SETTINGS, "dc", HOST / script)
    assert done.returncode == 2 and "matches feature distributions" in done.stderr


def test_forks_without_a_seam_are_refused(arguments, tmp_path):
    wrong = {what: why for what, why in check("dc", HOST, "main.py", arguments, tmp_path / "forks") if why}
    assert not wrong


@pytest.mark.parametrize("mutation", GUARDED)
def test_forks_with_another_loss_call_are_guarded_exactly(run, fork, arguments, tmp_path, mutation):
    GUARDED[mutation](fork)
    done = run(*SETTINGS, "dc", fork / "main.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path)["guarded"] == 100


@pytest.mark.parametrize("mutation", REFUSED_DURING)
def test_forks_that_cannot_be_guarded_exactly_are_refused(run, fork, arguments, mutation):
    mutate, code, words = REFUSED_DURING[mutation]
    mutate(fork)
    done = run(*SETTINGS, "--strength", "0", "dc", fork / "main.py", *arguments)
    assert done.returncode == code, done.stderr
    assert any(word in done.stderr for word in words.split("|"))
