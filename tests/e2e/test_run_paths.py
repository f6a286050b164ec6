"""The ways of computing the penalty, over two processes and through ``guard run`` on our own baselines."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import guard_plugin
from guard_plugin.versions import strict_zip
from tests.conftest import BASELINES, Runner
from tests.versions import load_own

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

    return [[(a + b) / 2 for a, b in strict_zip(gradients(0, step), gradients(1, step))] for step in range(2)]


def test_two_processes_have_the_mean_of_their_reference_gradients_on_every_way(two_ranks, tmp_path):
    (tmp_path / "problem.py").write_text(PROBLEM)
    (tmp_path / "train.py").write_text(SCRIPT)
    done = two_ranks("train.py", json.dumps(KINDS), json.dumps(WAYS))
    assert done.returncode == 0, done.stderr
    results = torch.load(tmp_path / "results.pt")
    assert len(results) == len(KINDS) * len(FORMS) * len(WAYS)
    torch.set_default_dtype(torch.float64)
    try:
        wanted = {form: means_of_one_process(form) for form in FORMS}
    finally:
        torch.set_default_dtype(torch.float32)
    for case, (steps, taken) in results.items():
        kind, form, way = case.split()
        for got, expected in strict_zip(steps, wanted[form]):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12, msg=lambda m, c=case: f"{c}: {m}")
        # A network's first call is not shared, as nothing is known of it.
        wanted_ways = {"separate": 1, "shared": 1} if way == "auto" and kind != "static" else {"separate": 2}
        assert {name: one["calls"] for name, one in taken.items()} == wanted_ways, case
        if way == "auto" and kind == "static":
            assert list(taken["separate"]["because"]) == ["DDP's static_graph needs the gradients to pass its output"]


DC = shlex.split(
    "--dataset digits --model ConvNetW32 --ipc 1 --num_exp 1 --num_eval 0 --Iteration 0 --outer_loop 1 --inner_loop 1 "
    "--batch_real 8 --save_path"
)
DC_CALLS = 10
BUFFER = shlex.split(
    "--dataset digits --model MLP --num_experts 1 --train_epochs 1 --save_interval 1 --dsa False "
    "--batch_train 500 --buffer_path"
)
MTT_CALLS = 2  # batches of 500 in 1000 images


def run(guard: Runner, folder: Path, script: str, arguments: list[str], ways: dict[str, str]) -> Any:
    """Run a baseline under guard on each way, its results in a folder of that name; return the ledgers by way."""
    adapter = script.split("/")[0]
    settings, host = ["--strength", "5", "--h", "0.5"], [adapter, str(BASELINES / script), *arguments]
    for way, options in ways.items():
        done = guard("run", *settings, *shlex.split(options), "--ledger", f"{way}.json", *host, way)
        assert done.returncode == 0, done.stderr
    return {way: json.loads((folder / f"{way}.json").read_text()) for way in ways}


def distilled(folder: Path) -> list[torch.Tensor]:
    (file,) = folder.glob("res_*.pt")
    return [tensor for pair in load_own(file)["data"] for tensor in pair]


def ways_taken(ledgers: dict[str, dict[str, Any]]) -> dict[str, tuple[dict[str, int], str]]:
    return {
        way: ({path: one["calls"] for path, one in ledger["paths"].items()}, ledger["memory"])
        for way, ledger in ledgers.items()
    }


def test_dc_distils_the_same_images_on_every_way(guard, tmp_path):
    ways = {
        "default": "",
        "separate": "--set path=separate",
        "low": "--memory low",
        "reference": "--set path=reference",
        "none": "--strength 0",
    }
    ledgers = run(guard, tmp_path, "dc/main.py", DC, ways)
    assert ways_taken(ledgers) == {
        "default": ({"separate": 1, "shared": DC_CALLS - 1}, "normal"),
        "separate": ({"separate": DC_CALLS}, "normal"),
        "low": ({"separate": DC_CALLS}, "low"),
        "reference": ({"reference": DC_CALLS}, "normal"),
        "none": ({}, "normal"),
    }
    wanted, labels = distilled(tmp_path / "reference")
    made_by_the_penalty = (wanted - distilled(tmp_path / "none")[0]).norm()
    for way in ("default", "separate", "low"):
        images, found = distilled(tmp_path / way)
        # float32: the matching loss divides by the norms of gradients, so rounding is not rounding any more.
        assert (images - wanted).norm() < 1e-2 * made_by_the_penalty, way
        assert torch.equal(found, labels)
        values = [ledgers[one]["penalty_value"]["first"] for one in (way, "reference")]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_mtts_experts_are_the_same_on_every_way(guard, tmp_path):
    ways = {"default": "", "low": "--memory low", "reference": "--set path=reference"}
    ledgers = run(guard, tmp_path, "mtt/buffer.py", BUFFER, ways)
    assert ways_taken(ledgers) == {
        "default": ({"separate": 1, "shared": MTT_CALLS - 1}, "normal"),
        "low": ({"separate": MTT_CALLS}, "low"),
        "reference": ({"reference": MTT_CALLS}, "normal"),
    }
    assert ledgers["reference"]["paths"]["reference"]["because"] == {"asked for": MTT_CALLS}

    def moved(way: str) -> torch.Tensor:
        (file,) = (tmp_path / way).rglob("replay_buffer_*.pt")
        start, *_, end = torch.load(file)[0]
        return torch.cat([(b - a).flatten() for a, b in strict_zip(start, end)])

    for way in ("default", "low"):
        assert (moved(way) - moved("reference")).norm() < 1e-3 * moved("reference").norm(), way
        # The last one is that of a network that has made a step along the first one's gradient.
        values = [ledgers[one]["penalty_value"]["last"] for one in (way, "reference")]
        assert values[0] == pytest.approx(values[1], rel=1e-3)
