"""The ways of computing the penalty, over two processes and through ``guard run`` on our own baselines."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import guard_plugin
from tests.conftest import BASELINES

FORMS = ["gradient", "loss"]
WAYS: dict[str, dict[str, str]] = {"auto": {}, "low": {"memory": "low"}}
KINDS: dict[str, dict[str, bool]] = {
    "default": {},
    "find_unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
}

SCRIPT = """
import json, os, sys, torch, torch.distributed as dist
from torch import nn
import guard_plugin
sys.path.insert(0, os.path.dirname(__file__))
from problem import Net, batch
dist.init_process_group("gloo")
torch.set_default_dtype(torch.float64)
rank, results = dist.get_rank(), {}
kinds, ways = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for kind, settings in kinds.items():
    for form in ("gradient", "loss"):
        for way, options in ways.items():
            torch.manual_seed(0)
            net = nn.parallel.DistributedDataParallel(Net(spare=kind == "find_unused"), **settings)
            criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.7, form=form, **options)
            steps = []
            for step in range(2):
                net.zero_grad()
                x, y = batch(rank, step)
                criterion(net(x), y).backward()
                gradients = [p.grad for p in net.module.used()]
                everyones = [torch.zeros_like(gradients[0]) for _ in range(2)]
                dist.all_gather(everyones, gradients[0])
                assert gradients[0].any() and torch.equal(*everyones), (kind, form, way, step)
                steps.append([gradient.clone() for gradient in gradients])
            results[f"{kind} {form} {way}"] = (steps, criterion.paths.to_json())
            criterion.unwrap()
if rank == 0:
    torch.save(results, "results.pt")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # gloo's threads now and then abort the interpreter's shutdown
"""

PROBLEM = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, spare):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        )
        self.spare = nn.Linear(2, 2) if spare else None

    def forward(self, x):
        return self.layers(x)

    def used(self):
        return list(self.layers.parameters())

def batch(rank, step):
    generator = torch.Generator().manual_seed(10 * rank + step)
    return torch.randn(4, 2, 8, 8, generator=generator), torch.randint(3, (4,), generator=generator)
"""


def means_of_one_process(form: str) -> list[list[torch.Tensor]]:
    """The gradients of the reference way, computed for each rank's batches here, and averaged."""
    problem: dict[str, Any] = {"__name__": "problem"}
    exec(PROBLEM, problem)
    torch.manual_seed(0)
    net = problem["Net"](spare=False)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.7, form=form, path="reference")

    def gradients(rank: int, step: int) -> tuple[torch.Tensor, ...]:
        x, y = problem["batch"](rank, step)
        return torch.autograd.grad(criterion(net(x), y), net.used())

    return [[(a + b) / 2 for a, b in zip(gradients(0, step), gradients(1, step), strict=True)] for step in range(2)]


def torchrun(folder: Path, environment: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_two_processes_have_the_mean_of_their_reference_gradients_on_every_way(tmp_path, environment):
    (tmp_path / "problem.py").write_text(PROBLEM)
    (tmp_path / "train.py").write_text(SCRIPT)
    torchrun(tmp_path, environment, "train.py", json.dumps(KINDS), json.dumps(WAYS))
    results = torch.load(tmp_path / "results.pt")
    assert len(results) == len(KINDS) * len(FORMS) * len(WAYS)
    torch.set_default_dtype(torch.float64)
    try:
        wanted = {form: means_of_one_process(form) for form in FORMS}
    finally:
        torch.set_default_dtype(torch.float32)
    for case, (steps, taken) in results.items():
        kind, form, way = case.split()
        for got, expected in zip(steps, wanted[form], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12, msg=lambda m, c=case: f"{c}: {m}")
        path = "shared" if way == "auto" and kind != "static" else "separate"
        assert {name: one["calls"] for name, one in taken.items()} == {path: 2}, case
        if way == "auto" and kind == "static":
            assert list(taken[path]["because"]) == ["DDP's static_graph needs the gradients to pass its output"]


DC = shlex.split(
    "--dataset digits --ipc 1 --num_exp 1 --num_eval 0 --Iteration 0 --outer_loop 1 --inner_loop 1 --batch_real 8"
)
DC_CALLS = 10
BUFFER = shlex.split(
    "--dataset digits --model ConvNet --num_experts 1 --train_epochs 1 --save_interval 1 --dsa False --batch_train 500"
)
MTT_CALLS = 2  # batches of 500 in 1000 images


@pytest.fixture
def run(guard, tmp_path):
    """Run a baseline under guard; return its ledger."""

    def ledger(options: str, adapter: str, script: str, *arguments: str) -> dict[str, Any]:
        settings = ["--strength", "1", "--h", "0.5", "--ledger", "ledger.json", *shlex.split(options)]
        done = guard("run", *settings, adapter, BASELINES / adapter / script, *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "ledger.json").read_text())

    return ledger


def distilled(folder: Path) -> list[torch.Tensor]:
    (file,) = folder.glob("res_*.pt")
    return [tensor for pair in torch.load(file, weights_only=False)["data"] for tensor in pair]


def calls(ledger: dict[str, Any]) -> dict[str, int]:
    return {path: one["calls"] for path, one in ledger["paths"].items()}


def test_dc_distils_the_same_images_on_every_way(run, tmp_path):
    arguments = ["--model", "ConvNet", *DC, "--save_path"]
    ledgers = {
        "auto": run("", "dc", "main.py", *arguments, "auto"),
        "separate": run("--path separate", "dc", "main.py", *arguments, "separate"),
        "low": run("--memory low", "dc", "main.py", *arguments, "low"),
        "reference": run("--path reference", "dc", "main.py", *arguments, "reference"),
    }
    assert {name: (calls(ledger), ledger["memory"]) for name, ledger in ledgers.items()} == {
        "auto": ({"shared": DC_CALLS}, "normal"),
        "separate": ({"separate": DC_CALLS}, "normal"),
        "low": ({"separate": DC_CALLS}, "low"),
        "reference": ({"reference": DC_CALLS}, "normal"),
    }
    wanted, first = distilled(tmp_path / "reference"), ledgers["reference"]["penalty_value"]["first"]
    plain = run("--strength 0", "dc", "main.py", *arguments, "plain")
    assert calls(plain) == {}
    unguarded = distilled(tmp_path / "plain")[0]
    for name, ledger in ledgers.items():
        assert ledger["penalty_value"]["first"] == pytest.approx(first, rel=1e-4)
        got = distilled(tmp_path / name)
        # What the penalty changed, up to float32's rounding on the way through the host's matching loss.
        assert (got[0] - wanted[0]).norm() < 1e-2 * (unguarded - wanted[0]).norm()
        assert torch.equal(got[1], wanted[1])


def test_dc_with_batch_norm_has_passes_of_the_penaltys_own(run):
    ledger = run("--form loss", "dc", "main.py", "--model", "ConvNetBN", *DC, "--save_path", "out")
    assert calls(ledger) == {"separate": DC_CALLS} or calls(ledger) == {"shared": DC_CALLS}


def test_mtts_experts_are_the_same_on_every_way(run, tmp_path):
    counts, experts = {}, {}
    for name in ("", "--memory low", "--path separate", "--path reference"):
        folder = f"buffers{name.replace(' ', '')}"
        counts[name] = calls(run(name, "mtt", "buffer.py", *BUFFER, "--buffer_path", folder))
        (file,) = (tmp_path / folder).rglob("replay_buffer_*.pt")
        start, end = torch.load(file)[0]
        experts[name] = [(b - a).flatten() for a, b in zip(start, end, strict=True)]
    assert counts == {
        "": {"shared": MTT_CALLS},
        "--memory low": {"separate": MTT_CALLS},
        "--path separate": {"separate": MTT_CALLS},
        "--path reference": {"reference": MTT_CALLS},
    }
    wanted = torch.cat(experts["--path reference"])
    for name, moved in experts.items():
        assert (torch.cat(moved) - wanted).norm() < 1e-2 * wanted.norm(), name
