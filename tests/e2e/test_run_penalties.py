"""``guard run --penalty NAME`` on our own DC."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from guard_plugin.cli import cli
from guard_plugin.errors import UnusableInput
from guard_plugin.versions import strict_zip
from tests.versions import load_own

ARGUMENTS = shlex.split(
    "--dataset digits --model ConvNetBN --ipc 1 --num_exp 1 --num_eval 0 --Iteration 0 --outer_loop 1 --inner_loop 1 "
    "--batch_real 8 --save_path out"
)
CALLS = 1 * 1 * 1 * 10
PIXELS = "--set eps=16/255 --set mean=0.3051 --set std=0.3753"
IN_PIXELS = {"eps": 16 / 255, "mean": [0.3051], "std": [0.3753], "seed": 0}
RUNS = {
    "gradient_norm": (
        "--strength 0.1 --strength-ramp 5",
        {"combination": "added", "strength": 0.1, "strength_ramp": 5},
    ),
    "pgd_at": (
        f"{PIXELS} --set steps=2 --set eps_ramp=5",
        {"combination": "replaces", "strength": 1.0, "strength_ramp": 0}
        | {**IN_PIXELS, "eps_ramp": 5, "steps": 2, "rel_step_size": 0.25},
    ),
    "fast": (
        f"{PIXELS} --strength 0.5",
        {"combination": "replaces", "strength": 0.5, "strength_ramp": 0}
        | {**IN_PIXELS, "eps_ramp": 0, "rel_step_size": 1.25},
    ),
    "trades": (
        f"{PIXELS} --set steps=2",
        {"combination": "added", "strength": 6.0, "strength_ramp": 0}
        | {**IN_PIXELS, "eps_ramp": 0, "steps": 2, "rel_step_size": 0.007 / 0.031},
    ),
}


def tensors(folder: Path) -> list[torch.Tensor]:
    (file,) = folder.glob("res_*.pt")
    return [t for pair in load_own(file)["data"] for t in pair]


@pytest.mark.parametrize("penalty", RUNS)
def test_exactly_the_loss_calls_on_real_data_are_guarded_as_set(guard, baseline, tmp_path, penalty):
    options, settings = RUNS[penalty]
    command = ["--penalty", penalty, *shlex.split(options), "--ledger", "ledger.json", "dc", baseline / "main.py"]
    done = guard("run", *command, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert (ledger["loss_calls"]["guarded"], ledger["loss_calls"]["expected"]) == (CALLS, CALLS)
    assert ledger["penalty"].pop("reached", {}) == {
        n: settings[n] for n in ("strength", "eps") if settings.get(f"{n}_ramp")
    }
    assert ledger["penalty"] == {"name": penalty, **settings}
    assert ledger["penalty_value"]["mean"] > 0 and ledger["penalty_value"]["nonfinite"] == 0


def test_strength_zero_is_the_plain_run_bit_for_bit_and_above_zero_is_not(guard, python, baseline, tmp_path):
    python(baseline / "main.py", *ARGUMENTS[:-1], "plain", check=True)
    for strength in ("0", "1"):
        options = shlex.split(f"--penalty pgd_at --strength {strength} {PIXELS} --set steps=1")
        done = guard("run", *options, "dc", baseline / "main.py", *ARGUMENTS[:-1], strength)
        assert done.returncode == 0, done.stderr
    expected = tensors(tmp_path / "plain")
    assert all(torch.equal(a, b) for a, b in strict_zip(tensors(tmp_path / "0"), expected))
    assert not torch.equal(tensors(tmp_path / "1")[0], expected[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--penalty trades", r"penalty 'trades' needs eps: .* --set eps=8/255"),
        ("--penalty trades --set eps=0.1 --h 3", "penalty 'trades' has no setting h: expected strength,"),
        ("--penalty trades --set epsilon=0.1", "penalty 'trades' has no setting epsilon: expected strength,"),
        ("--penalty trades --set eps=some", "expected eps to be a number, such as 0.5 or 8/255, got 'some'"),
        ("--penalty trades --set eps=0.1 --set strength=2", "strength has an option of its own, --strength"),
        ("--penalty free", "free adversarial training"),
    ],
)
def test_what_cannot_be_set_is_refused_before_anything_runs(baseline, options, message):
    arguments = ["run", *shlex.split(options), "dc", str(baseline / "main.py"), *ARGUMENTS]
    with pytest.raises(UnusableInput, match=message):
        cli.main(arguments, standalone_mode=False)


DISTRIBUTED = """
import os, sys, torch, torch.distributed as dist
from torch import nn
import guard_plugin
dist.init_process_group("gloo")
torch.manual_seed(0)
net = nn.parallel.DistributedDataParallel(nn.Linear(5, 3), static_graph=True)
criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty=sys.argv[1], eps=0.1)
torch.manual_seed(1 + dist.get_rank())
for _ in range(2):
    net.zero_grad()
    criterion(net(torch.randn(6, 5)), torch.randint(3, (6,))).backward()
    gradient = net.module.weight.grad
    everyones = [torch.zeros_like(gradient) for _ in range(2)]
    dist.all_gather(everyones, gradient)
    assert gradient.any() and torch.equal(*everyones), everyones
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # gloo's threads now and then abort the interpreter's shutdown
"""


@pytest.mark.parametrize("penalty", ["pgd_at", "fast"])
def test_two_processes_exchange_gradients_where_the_hosts_loss_is_replaced(two_ranks, tmp_path, penalty):
    (tmp_path / "train.py").write_text(DISTRIBUTED)
    done = two_ranks("train.py", penalty)
    assert done.returncode == 0, done.stderr


def test_the_demo_refuses_a_penalty_that_it_has_no_options_for(tmp_path):
    with pytest.raises(UnusableInput, match="guard demo cannot run penalty 'pgd_at': it needs eps"):
        cli.main(["demo", "--penalty", "pgd_at"], standalone_mode=False)
    assert not list(tmp_path.iterdir())
