"""``guard run mtt`` and ``guard run tesla`` on our own baselines, and on the layout of their descendants."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from guard_plugin.versions import strict_zip
from tests.conftest import BASELINES

BUFFER = shlex.split("--dataset digits --model MLP --num_experts 2 --train_epochs 2 --save_interval 1 --dsa False")
DISTILL = shlex.split(
    "--dataset digits --model MLP --ipc 1 --Iteration 1 --syn_steps 2 --expert_epochs 1 --max_start_epoch 1 --eval_it 0"
)
SETTINGS = ["--strength", "1", "--h", "0.5", "--ledger", "ledger.json"]
CALLS = 2 * 2 * 4  # experts, epochs, batches of 256 in 1000 images


def ledger(folder: Path) -> dict:
    return json.loads((folder / "ledger.json").read_text())


def trajectories(folder: Path) -> list[list[list[torch.Tensor]]]:
    return [expert for file in sorted(folder.rglob("replay_buffer_*.pt")) for expert in torch.load(file)]


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(equal(x, y) for x, y in strict_zip(a, b))


def replace(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize("adapter", ["mtt", "tesla"])
@pytest.mark.parametrize("extra", ["", "--model ConvNetBN --num_experts 1 --dsa True", "--zca --form loss"])
def test_each_training_batch_of_each_expert_is_guarded_and_no_test_batch(guard, tmp_path, adapter, extra):
    options, arguments = shlex.split(extra.replace("--form loss", "")), list(BUFFER)
    form = ["--form", "loss"] if "--form" in extra else []
    script = BASELINES / adapter / "buffer.py"
    done = guard("run", *SETTINGS, *form, adapter, script, *arguments, *options, "--buffer_path", "buffers")
    assert done.returncode == 0, done.stderr
    calls = ledger(tmp_path)["loss_calls"]
    expected = CALLS // 2 if "num_experts 1" in extra else CALLS
    assert (calls["guarded"], calls["expected"]) == (expected, expected)
    assert set(calls["skipped"]) == {"network in eval mode"}
    (site,) = [site for site, counts in ledger(tmp_path)["sites"].items() if "guarded" in counts]
    assert site.startswith("utils.py:")
    assert len(trajectories(tmp_path / "buffers")) == expected // 8


@pytest.mark.parametrize("adapter", ["mtt", "tesla"])
def test_strength_zero_is_the_plain_run_bit_for_bit(guard, python, tmp_path, adapter):
    script = BASELINES / adapter / "buffer.py"
    python(script, *BUFFER, "--buffer_path", "plain", check=True)
    for strength in ("0", "5"):
        options = ["--strength", strength, "--h", "0.5"]
        assert guard("run", *options, adapter, script, *BUFFER, "--buffer_path", strength).returncode == 0
    assert equal(trajectories(tmp_path / "0"), trajectories(tmp_path / "plain"))
    assert not equal(trajectories(tmp_path / "5"), trajectories(tmp_path / "plain"))


@pytest.mark.parametrize("adapter", ["mtt", "tesla"])
def test_distilling_runs_as_it_is_and_warns_of_buffers_that_are_not_guards(guard, python, tmp_path, adapter):
    scripts = BASELINES / adapter
    done = guard("run", *SETTINGS, adapter, scripts / "buffer.py", *BUFFER, "--buffer_path", "buffers")
    assert done.returncode == 0, done.stderr
    distill = ["run", "--ledger", "ledger.json", adapter, scripts / "distill.py", *DISTILL, "--buffer_path", "buffers"]
    done = guard(*distill)
    assert done.returncode == 0, done.stderr
    assert "nothing to guard here" in done.stderr and "2 of 2 files read are GUARD's" in done.stderr
    assert "warning" not in done.stderr
    calls = ledger(tmp_path)["loss_calls"]
    assert calls["guarded"] == 0 and calls["seen"] > 0
    python(scripts / "buffer.py", *BUFFER, "--buffer_path", "buffers", check=True)
    done = guard(*distill)
    # The host reads buffers as it needs them, in a random order.
    assert done.returncode == 0 and "2 of 4 files read" in done.stderr
    assert done.stderr.count("is not known to be made under GUARD (there is no replay_buffer_") == 2


@pytest.mark.parametrize(("adapter", "whitened"), [("mtt", False), ("tesla", True)])
def test_what_is_distilled_is_benchmarked_as_the_host_evaluates_it(guard, tmp_path, adapter, whitened):
    zca = ["--zca"] if whitened else []
    for script, arguments in (("buffer.py", BUFFER), ("distill.py", DISTILL)):
        places = ["--buffer_path", "buffers"]
        done = guard("run", *SETTINGS, adapter, BASELINES / adapter / script, *arguments, *zca, *places)
        assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "logged_files" / "digits").iterdir()
    options = "--arch MLP --attacks fgsm --eps 8/255 --n-examples 50 --seeds 2 --json"
    done = guard("benchmark", "--out", "b", "--distilled", run, "--adapter", adapter, *shlex.split(options))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["protocol"]["recipe"]["name"] == "mtt"
    learnt = float(torch.load(run / "lr_best.pt"))
    assert results["protocol"]["recipe"]["learning_rate"] == pytest.approx(learnt)
    assert ("zca" in json.dumps(results["protocol"]["normalization"]).lower()) == whitened
    assert results["accuracy"]["worst_case"]["mean"] <= results["accuracy"]["clean"]["mean"] <= 1


def test_a_regression_loss_is_refused_before_anything_runs(guard):
    for option in (["--loss_type", "mse"], ["--loss_type=mse"], ["--loss", "mse"]):
        done = guard("run", *SETTINGS, "tesla", BASELINES / "tesla" / "buffer.py", *BUFFER, *option)
        assert done.returncode == 2 and not done.stdout
        assert "cannot be guarded with --loss_type mse: it is a regression loss" in done.stderr


def test_aliased_snapshots_are_named_and_mended_in_memory(guard, forks, tmp_path):
    script = forks / "mtt" / "buffer.py"
    replace(script, "snapshot(teacher_net)", "[p.detach().cpu() for p in teacher_net.parameters()]")
    before = script.read_bytes()
    doctor = guard("doctor", "mtt", forks / "mtt")
    assert doctor.returncode == 0 and "known fault: snapshots-alias (buffer.py:" in doctor.stdout
    for options, same in (([], True), (["--repair"], False)):
        done = guard("run", *SETTINGS, *options, "mtt", script, *BUFFER, "--buffer_path", f"out{same}")
        assert done.returncode == 0 and "known fault of this host, snapshots-alias" in done.stderr
        for expert in trajectories(tmp_path / f"out{same}"):
            assert equal(expert[0], expert[-1]) == same
        (fault,) = ledger(tmp_path)["faults"]
        assert fault["name"] == "snapshots-alias" and fault["repaired"] == (not same)
    assert script.read_bytes() == before
    assert not list(forks.rglob("__pycache__"))


def test_an_undefined_argument_is_named_and_mended_in_memory(guard, forks):
    replace(
        forks / "tesla" / "utils.py",
        '        if mode == "train":\n',
        '        if args.teacher_label:\n            1 / 0\n        if mode == "train":\n',
    )
    script = forks / "tesla" / "buffer.py"
    done = guard("run", *SETTINGS, "tesla", script, *BUFFER)
    assert done.returncode == 1 and "teacher-label-undefined (utils.py:" in done.stderr
    assert "AttributeError: 'Namespace' object has no attribute 'teacher_label'" in done.stderr
    done = guard("run", *SETTINGS, "--repair", "tesla", script, *BUFFER)
    assert done.returncode == 0 and "16 of 16 expected guarded" in done.stderr
    replace(script, "    criterion = ", "    args.teacher_label = False\n    criterion = ")
    assert "teacher-label" not in guard("doctor", "tesla", forks / "tesla").stdout


# FTD's and DATM's layout: scripts a folder below the modules that they import, a package without an __init__.py, and a
# sharpness-aware step that calls the criterion at the weights and at perturbed ones.
FTD_SCRIPT = """
import argparse, os, sys
sys.path.append("../")
import torch
from utils.utils_gsam import epoch
from sam import SAM

def main(args):
    images, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    trainloader = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    save_dir = args.buffer_path
    os.makedirs(save_dir, exist_ok=True)
    for it in range(args.num_experts):
        net = torch.nn.Linear(5, 3)
        optimizer = SAM(net)
        for e in range(args.train_epochs):
            epoch("train", trainloader, net, optimizer, torch.nn.CrossEntropyLoss(), args, True, None)
            epoch("test", trainloader, net, None, torch.nn.CrossEntropyLoss(), args, False, None)
        torch.save([[list(net.parameters())]], os.path.join(save_dir, f"replay_buffer_{it}.pt"))

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_experts", type=int)
    parser.add_argument("--train_epochs", type=int)
    parser.add_argument("--buffer_path")
    main(parser.parse_args())
"""
FTD_SAM = """
import torch
class SAM:
    def __init__(self, net):
        self.net = net
    @torch.no_grad()
    def step(self, loss_fn, images, labels):
        for rho in (0.1, -0.1):
            with torch.enable_grad():
                loss = loss_fn(self.net(images), labels)
            loss.backward()
            for p in self.net.parameters():
                p.add_(rho * p.grad)
"""
FTD_UTILS = """
def epoch(mode, dataloader, net, optimizer, criterion, args, aug, scheduler, texture=False):
    net.train(mode == "train")
    for images, labels in dataloader:
        def loss_fn(output, targets):
            return criterion(output, targets)
        if mode == "train":
            optimizer.step(loss_fn, images, labels)
        else:
            criterion(net(images), labels)
"""
FTD_ARGUMENTS = shlex.split("--num_experts 2 --train_epochs 3 --buffer_path out")


@pytest.fixture
def ftd(tmp_path: Path) -> Path:
    host = tmp_path / "ftd"
    for name, text in (("buffer/buffer_FTD", FTD_SCRIPT), ("buffer/sam", FTD_SAM), ("utils/utils_gsam", FTD_UTILS)):
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / f"{name}.py").write_text(text)
    return host


@pytest.mark.parametrize("where", [".", "ftd", "ftd/buffer"])
def test_a_sharpness_aware_step_is_guarded_twice_wherever_it_is_started_from(guard, ftd, tmp_path, where):
    done = guard("run", *SETTINGS, "mtt", ftd / "buffer" / "buffer_FTD.py", *FTD_ARGUMENTS, cwd=tmp_path / where)
    assert done.returncode == 0, done.stderr
    found = ledger(tmp_path / where)
    assert found["loss_calls"]["guarded"] == found["loss_calls"]["expected"] == 2 * 2 * 3 * 2
    assert found["sites"]["utils/utils_gsam.py:6"]["guarded"] == 24
    assert (tmp_path / where / "out" / "replay_buffer_1.pt.guard.json").is_file()


def test_a_package_of_the_hosts_name_elsewhere_is_refused(guard, ftd, tmp_path):
    (tmp_path / "elsewhere" / "utils").mkdir(parents=True)
    (tmp_path / "elsewhere" / "utils" / "__init__.py").write_text("")
    script = ftd / "buffer" / "buffer_FTD.py"
    done = guard("run", *SETTINGS, "mtt", script, *FTD_ARGUMENTS, PYTHONPATH=str(tmp_path / "elsewhere"))
    assert done.returncode == 2 and "has no __init__.py, so that Python would import" in done.stderr
