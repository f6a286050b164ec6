import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from examples.overhead.__main__ import main
from examples.overhead.case import Case
from examples.overhead.contenders import Apart, Contender, peak_on_cpu
from examples.overhead.methods import (
    methods,
    published_gradient_form,
    published_loss_form,
    unwrapped,
    wrapped,
)
from examples.overhead.report import Measured
from guard_plugin.errors import UnusableInput
from guard_plugin.versions import strict_zip
from tests.conftest import ROOT

TINY = ["--arch", "MLP", "--size", "4", "--batch-size", "3"]
MIB = 2**20
PUBLISHED = {"published_gradient_form": published_gradient_form, "published_loss_form": published_loss_form}
pytestmark = pytest.mark.long


@pytest.fixture
def smooth():
    """A small network without kinks, and a batch, in double precision."""
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    return network, torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 2, 1, 1])


def formulas(network, inputs, labels, h):
    """Both published penalties, without their weight, one example at a time."""

    def loss(one, label):
        return functional.cross_entropy(functional_call(network, dict(network.named_parameters()), one), label)

    here = vmap(grad(loss))(inputs, labels)
    flat = here.detach() / len(inputs)  # their loss is the mean over the batch, and so is flatter in each example
    ends = inputs + h * (flat + 1e-7) / (flat.norm(dim=1, keepdim=True) + 1e-7)
    losses, there = vmap(loss), vmap(grad(loss))(ends, labels)
    return {
        "published_gradient_form": (there - here).norm(dim=1).mean() / len(inputs),
        "published_loss_form": (losses(ends, labels).mean() - losses(inputs, labels).mean()).abs(),
    }


@pytest.mark.parametrize("form", list(PUBLISHED))
def test_the_published_passes_compute_their_formula_and_its_gradient(smooth, form):
    network, inputs, labels = smooth
    expected = 100 * formulas(network, inputs, labels, h=0.5)[form]
    term = PUBLISHED[form](h=0.5, strength=100.0)(network, inputs, labels)
    torch.testing.assert_close(term, expected, rtol=1e-9, atol=0)
    parameters = list(network.parameters())
    for found, right in strict_zip(gradients(term, parameters), gradients(expected, parameters)):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)


def gradients(value, parameters):
    # The last bias moves no input gradient.
    return torch.autograd.grad(value, parameters, materialize_grads=True)


@pytest.mark.parametrize("form", list(PUBLISHED))
def test_the_published_passes_leave_no_gradient_and_the_network_in_training(smooth, form):
    network, inputs, labels = smooth
    PUBLISHED[form](h=0.5, strength=1.0)(network, inputs, labels)
    assert network.training and not inputs.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_every_method_makes_the_passes_that_its_description_says():
    network, batch = Case("MLP", 3, 4, 10, 1, 0, "cpu", 1).build(torch.device("cpu"))
    made = {name: Contender(network, make, batch).passes() for name, make in methods((3, 4, 4)).items()}
    assert made["plain"] == (1, 1)
    # The host's pass, the direction, then both ends; backward: the direction, then all three outputs ...
    assert made["authors, loss form"] == (4, 4)
    # ... and the gradient of the difference, through both ends.
    assert made["authors, gradient form"] == (4, 6)
    # The host's pass, ten steps and the pass that trains; TRADES trains on the clean images, too, and starts from them.
    assert made["PGD-10 training"] == (12, 11)
    assert made["TRADES-10"] == (14, 13)
    assert made["fast training"] == (3, 2)
    for how in ("", ", guard run"):
        # The host's own pass serves; then the second point.
        assert made[f"GUARD, loss form{how}"] == (2, 2)
        assert made[f"GUARD, gradient form{how}"] == (2, 4)
    for how in ("separate", "memory low"):
        assert made[f"GUARD, loss form, {how}"] == (3, 3)
    assert made["GUARD, gradient form, separate"] == (3, 5)
    # The first point's graph is not held while the second's is, but made again.
    assert made["GUARD, gradient form, memory low"] == (4, 6)
    assert made["GUARD, loss form, reference"] == (3, 4)
    assert made["GUARD, gradient form, reference"] == (3, 5)
    assert made["gradient norm"] == (2, 3)
    assert made["strength 0"] == (1, 1)


def test_other_methods_do_not_pay_for_a_wrapped_criterion():
    plain = nn.Module.__call__
    network, batch = Case("MLP", 3, 4, 10, 1, 0, "cpu", 1).build(torch.device("cpu"))
    contender = Contender(network, methods((3, 4, 4))["GUARD, loss form"], batch)
    with contender.turn() as step:
        assert nn.Module.__call__ is not plain
    assert step is not None  # held, and its criterion with it
    assert nn.Module.__call__ is plain


def test_memory_is_the_most_that_was_held_at_once():
    def step():
        first = torch.empty(5 * MIB, dtype=torch.uint8)
        del first
        second = torch.empty(4 * MIB, dtype=torch.uint8)
        third = torch.empty(3 * MIB, dtype=torch.uint8)
        del second, third

    assert peak_on_cpu(step) == 7 * MIB


def wide_network() -> nn.Module:
    """As much memory in weights as in activations, as ResNet-18 has with a batch of 32 small images."""
    layers: list[nn.Module] = []
    for channels in (3, *[160] * 6):
        layers += [nn.Conv2d(channels, 160, 3, padding=1), nn.BatchNorm2d(160), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(160, 10))


@pytest.mark.skipif(not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"), reason="torch < 2.8")
@pytest.mark.parametrize("form", ["loss", "gradient"])
def test_memory_low_takes_at_most_a_quarter_more_than_the_plain_step(form):
    network, batch = wide_network(), (torch.randn(48, 3, 8, 8), torch.randint(10, (48,)))
    low = Contender(network, lambda net: wrapped(net, form=form, h=0.4, strength=1.0, memory="low"), batch).peak_bytes()
    plain = Contender(network, unwrapped, batch).peak_bytes()
    assert plain > 20 * MIB and low <= 1.25 * plain


def test_a_contender_has_a_process_of_its_own_which_ends(capfd):
    network, batch = Case("MLP", 3, 4, 10, 1, 0, "cpu", 1).build(torch.device("cpu"))
    contender = Contender(network, unwrapped, batch)
    before = [value.clone() for value in contender.network.parameters()]
    apart = Apart(contender, 1)
    assert apart.ask("passes") == (1, 1) and apart.ask("seconds", 2, "cpu") > 0 and apart.ask("is_finite")
    torch.testing.assert_close(list(contender.network.parameters()), before, rtol=0, atol=0)
    assert apart._process.is_alive()
    apart.close()
    assert not apart._process.is_alive()
    another = Apart(contender, 1)
    with pytest.raises(ChildProcessError, match="seconds failed"):
        another.ask("seconds", 1, "sundial")
    assert "KeyError: 'sundial'" in capfd.readouterr().err


def test_ratios_are_paired_within_a_round():
    rounds = [{"plain": 1.0, "x": 2.0}, {"plain": 10.0, "x": 40.0}, {"plain": 2.0, "x": 6.0}]
    assert Measured({}, rounds).ratios("x") == (2.5, 3.0, 3.5)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["overhead", *TINY, "--out", "out", *arguments])
    main()


def test_the_script_measures_draws_and_goes_on(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--rounds", "2")
    file = tmp_path / "out" / "MLP-4px-batch3.jsonl"
    before = file.read_text()
    assert len(before.splitlines()) == 3
    run(monkeypatch, "--rounds", "3")
    assert file.read_text().startswith(before)
    rounds = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    assert [one["round"] for one in rounds] == [0, 1, 2]
    assert {next(iter(one["seconds"])) for one in rounds} == set(list(rounds[0]["seconds"])[:3])  # the order rotates
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out and table.count("\n| ") == 1 + len(methods((3, 4, 4)))
    assert (tmp_path / "out" / "overhead.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UnusableInput, match="another measurement"):
        run(monkeypatch, "--rounds", "4", "--seed", "1")


def test_fewer_rounds_than_quartiles_need_are_refused_before_any_is_measured(monkeypatch, tmp_path):
    with pytest.raises(UnusableInput, match="rounds >= 2.*got 1"):
        run(monkeypatch, "--rounds", "1")
    assert not (tmp_path / "out").exists()


def test_an_unknown_network_ends_the_script_with_a_message_and_code_2(tmp_path):
    command = [sys.executable, "-m", "examples.overhead", "--arch", "NoSuchNet", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "NoSuchNet" in done.stderr and "Traceback" not in done.stderr
