"""What the guard refuses, and what plugins decide; in process, with a host of a few lines."""

import copy
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import guard_plugin
from guard_plugin import hookimpl
from guard_plugin.errors import NothingGuarded, PluginError, UnsupportedLoss, UnusableInput
from guard_plugin.injection import attachment
from guard_plugin.injection.attachment import Attachment
from guard_plugin.plugins import Plugins, installed_plugins
from tests.versions import needs_torch

HOST = """
import torch
from torch import nn
from utils import epoch, evaluate_synset

def main():
    for _ in range(args.num_exp * num_classes):
        step()
"""
UTILS = """
def epoch(mode, dataloader, net, optimizer, criterion, args, aug): pass
def evaluate_synset(it_eval, net, images_train, labels_train, testloader, args): pass
"""
X, Y = torch.randn(4, 5), torch.tensor([0, 1, 2, 1])


class Args:
    num_exp, Iteration, outer_loop = 2, 0, 1


@pytest.fixture
def script(tmp_path) -> Path:
    (tmp_path / "utils.py").write_text(UTILS)
    file = tmp_path / "main.py"
    file.write_text(HOST)
    return file


@pytest.fixture
def net() -> nn.Module:
    return nn.Linear(5, 3)


def run_main(script: Path, step, num_classes: int = 3) -> None:
    """Run the host's main, whose loss calls ``step`` makes; its six calls are what the adapter expects."""
    namespace = {"arguments": (Args(), num_classes), "step": step}
    source = script.read_text().replace("from utils import epoch, evaluate_synset", "")
    source = source.replace("def main():\n", "def main():\n    args, num_classes = arguments\n")
    exec(compile(source, str(script), "exec"), namespace)
    namespace["main"]()


def attached(script: Path, **options) -> Attachment:
    return guard_plugin.attach("dc", script=script, **{"strength": 1.0, "h": 0.5, **options})


def replaced() -> list[object]:
    """Return names that guarding replaces."""
    programs = [vars(os).get(name) for name in ("system", "execv", "execve", "spawnv", "spawnvpe", "posix_spawn")]
    return [functional.cross_entropy, sys.exit, subprocess.Popen.__init__, *programs]


def test_a_run_that_is_complete_ends_well(script, net):
    before = replaced()
    with attached(script) as g:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    assert (g.ledger.guarded, g.ledger.expected, g.ledger.outcome) == (6, 6, "complete")
    assert replaced() == before


def test_a_network_whose_evaluation_lags_behind_is_warned_of(script, capsys):
    slow = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=0.01), nn.Linear(4, 3))
    for strength in (1.0, 0.0):
        with attached(script, strength=strength) as g:
            run_main(script, lambda: functional.cross_entropy(slow(X), Y))
        lagging = [one for one in g.ledger.to_json()["warnings"] if "1 BatchNorm layer(s) of Sequential" in one]
        told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
        assert len(lagging) == strength and told == [f"guard: warning: {one}" for one in lagging]


def test_a_name_bound_during_the_run_is_the_plain_function_afterwards(script, net):
    with attached(script):
        bound = functional.cross_entropy
        run_main(script, lambda: bound(net(X), Y))
    assert torch.equal(bound(net(X), Y), functional.cross_entropy(net(X), Y))
    run_main(script, lambda: bound(net(X), Y))


def test_too_few_too_many_and_an_exception_are_told_apart(script, net):
    with pytest.raises(NothingGuarded, match="expected 6 guarded loss calls .* found 4 of 4"), attached(script):
        calls = iter(range(6))
        run_main(script, lambda: functional.cross_entropy(net(X), Y) if next(calls) < 4 else None)
    with pytest.raises(NothingGuarded, match="found one more at main.py"), attached(script):
        run_main(script, lambda: [functional.cross_entropy(net(X), Y) for _ in range(2)])
    with pytest.raises(ZeroDivisionError), attached(script) as g:
        raise ZeroDivisionError
    assert g.ledger.outcome == "failed"
    with attached(script):  # nothing of the others is left
        run_main(script, lambda: functional.cross_entropy(net(X), Y))


@pytest.mark.parametrize("breaks", ["run_started", "Repairs", "Provenance", "Tap"])
def test_a_guard_that_cannot_begin_leaves_nothing_behind(script, monkeypatch, breaks):
    def state():
        names = torch.save, torch.load, getattr(torch, "compile", None)
        return functional.cross_entropy, *names, list(sys.meta_path), nn.Module.__call__

    def fail(*_, **__):
        raise ZeroDivisionError

    told = []

    class Plugin:
        @hookimpl
        def run_started(self, ledger):
            if breaks == "run_started":
                fail()

        @hookimpl
        def run_ended(self, ledger):
            told.append(ledger.outcome)

    installed_plugins().register(Plugin(), "test", "test 1.0")
    if breaks != "run_started":
        monkeypatch.setattr(attachment, breaks, fail)
    before = state()
    with pytest.raises(PluginError if breaks == "run_started" else ZeroDivisionError):
        attached(script)
    assert state() == before and told == ([] if breaks == "run_started" else ["failed"])
    monkeypatch.undo()
    installed_plugins.cache_clear()
    with pytest.raises(NothingGuarded), attached(script):
        pass


def test_what_a_plugin_fails_of_at_the_end_hides_nothing(script, net, capsys):
    class Plugin:
        @hookimpl
        def run_ended(self, ledger):
            raise SystemExit(0)

    installed_plugins().register(Plugin(), "test", "test 1.0")
    before = replaced()
    with pytest.raises(PluginError, match="hook run_ended of test 1.0 failed: SystemExit: 0"), attached(script) as g:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    assert g.ledger.outcome == "complete" and replaced() == before
    both = "expected loss calls .*; further, hook run_ended of test 1.0 failed"
    with pytest.raises(NothingGuarded, match=both), attached(script) as g:
        pass
    assert g.ledger.outcome == "incomplete"
    with pytest.raises(ZeroDivisionError), attached(script) as g:
        raise ZeroDivisionError
    assert g.ledger.outcome == "failed" and "guard: error: hook run_ended of test" in capsys.readouterr().err
    with pytest.raises(PluginError, match="hook run_ended"):
        attached(script).detach()
    assert replaced() == before


def test_two_attachments_at_once_are_refused(script, net):
    with pytest.raises(NothingGuarded), attached(script), pytest.raises(UnusableInput, match="guarding is on already"):
        attached(script)


def parameters_swapped(net):
    values = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    return functional.cross_entropy(torch.func.functional_call(net, values, (X,)), Y)


def output_changed_in_place_without_gradient(net):
    out = net(X)
    with torch.no_grad():
        out += 1
    return functional.cross_entropy(out, Y)


class NormalisesInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(x.sub_(0.5))


def input_changed_by_the_network(net):
    return functional.cross_entropy(NormalisesInPlace()(X.clone()), Y)


class Focal(nn.CrossEntropyLoss):
    def forward(self, input, target):
        return super().forward(input, target) ** 2


@pytest.mark.parametrize(
    ("step", "message"),
    [
        pytest.param(parameters_swapped, "had other parameters when it was called", marks=needs_torch(2, 0)),
        (output_changed_in_place_without_gradient, "output of Linear was modified in place"),
        (input_changed_by_the_network, "modified in place, by the network"),
        (lambda net: Focal()(net(X), Y).backward(), "found Focal"),
        (lambda net: nn.CrossEntropyLoss(reduction="none")(net(X), Y).mean().backward(), "reduction='none'"),
    ],
)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_what_the_penalty_could_not_follow_is_refused(script, net, step, message, strength):
    with pytest.raises(UnsupportedLoss, match=message), attached(script, strength=strength):
        run_main(script, lambda: step(net))


def test_losses_that_judge_no_networks_output_are_none_of_our_business(script, net):
    def step():
        gradient = net.weight * 2
        nn.MSELoss()(gradient, torch.zeros_like(gradient))
        return functional.cross_entropy(net(X), Y, None, None, -100)

    with attached(script) as g:
        run_main(script, step)
    assert g.ledger.seen == g.ledger.guarded == 6


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*:DeprecationWarning"
)
def test_a_scripted_criterion_compiles_and_is_refused_where_it_is_called(script, net):
    with pytest.raises(UnsupportedLoss, match="found RecursiveScriptModule"), attached(script):
        scripted = torch.jit.script(nn.CrossEntropyLoss())
        run_main(script, lambda: scripted(net(X), Y).backward())


def test_nothing_of_the_hosts_is_kept_alive(script, net):
    seen = []

    def step():
        out = net(X)
        seen.append(weakref.ref(out))
        return functional.cross_entropy(out, Y)

    with attached(script):
        run_main(script, step)
    gc.collect()
    assert len(seen) == 6 and all(ref() is None for ref in seen)


@needs_torch(2, 1)  # which tells whether a backward pass keeps its graph
@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("path", ["auto", "separate", "reference"])
@pytest.mark.parametrize("beside", [lambda output: 0, lambda output: functional.kl_div(output, output.detach())])
def test_no_batch_outlives_its_backward_pass_where_the_host_keeps_its_losses(script, net, beside, path, strength):
    losses, batches = [], []

    def step():
        x = X.clone()
        output = net(x)
        losses.append(functional.cross_entropy(output, Y) + beside(output))
        losses[-1].backward()
        batches.append(weakref.ref(x))

    with attached(script, strength=strength, path=path):
        run_main(script, step)
    gc.collect()
    assert len(batches) == 6 and all(batch() is None for batch in batches)


@needs_torch(2, 1)
def test_no_batch_outlives_its_backward_pass_outside_of_seams(script, net):
    x = X.clone()
    batch = weakref.ref(x)
    with attached(script, strength=0.0):
        loss = functional.cross_entropy(net(x), Y)
        loss.backward()
        del x
        gc.collect()
        assert batch() is None
        run_main(script, lambda: functional.cross_entropy(net(X), Y))


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_an_unsupported_loss_beside_the_guarded_one_keeps_nothing_alive(script, net, strength):
    batches = []

    def step():
        x = X.clone()
        batches.append(weakref.ref(x))
        output = net(x)
        (functional.cross_entropy(output, Y) + functional.mse_loss(output, torch.zeros(4, 3))).backward()

    with attached(script, strength=strength):
        run_main(script, step)
    gc.collect()
    assert len(batches) == 6 and all(batch() is None for batch in batches)


@needs_torch(2, 1)
@pytest.mark.parametrize("path", ["separate", "reference"])
def test_a_loss_that_is_looked_at_after_the_backward_pass_is_on_the_batch_that_the_host_has(net, path):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.5, path=path)
    x = X.clone()
    output = net(x)
    loss = criterion(output, Y)
    loss.backward()
    torch.testing.assert_close(criterion(output, Y), loss)
    del x
    with pytest.raises(UnsupportedLoss, match="expected the batch that Linear was called with to exist"):
        criterion(output, Y)


@pytest.mark.parametrize(("ramp", "h"), [(6, 0.5), (7, 0.5 * 6 / 7)])
def test_a_ramp_that_is_not_finished_is_no_complete_run(script, net, ramp, h):
    attachment = attached(script, h_ramp=ramp)
    run_main(script, lambda: functional.cross_entropy(net(X), Y))
    problem = attachment.conclude(succeeded=True)
    assert attachment.ledger.to_json()["penalty"]["reached"] == {"h": pytest.approx(h)}
    assert attachment.ledger.outcome == ("complete" if ramp == 6 else "incomplete")
    assert problem is None or "at least 7 guarded loss calls for the ramp, found 6: h rose to 0.428571" in str(problem)


def test_at_strength_zero_no_ramp_is_asked_for(script, net):
    with attached(script, strength=0.0, h_ramp=7) as g:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    assert g.ledger.outcome == "complete" and "reached" not in g.ledger.to_json()["penalty"]


def test_a_loss_that_is_logged_without_gradients_is_not_guarded(script, net):
    def step():
        output = net(X)
        functional.cross_entropy(output, Y)
        with torch.no_grad():
            functional.cross_entropy(output, Y)

    with attached(script) as g:
        run_main(script, step)
    assert g.ledger.guarded == 6 and g.ledger.skipped == {"gradients off": 6}


class Opinion:
    """A plugin with an opinion on everything."""

    def __init__(self, real=None, value=None):
        self.real, self.value = real, value

    @hookimpl
    def is_real_data(self, call):
        return self.real

    @hookimpl
    def compute_penalty(self, call):
        return self.value(call) if self.value else None


def with_plugin(monkeypatch, plugin) -> None:
    plain = Plugins.__init__

    def init(self, found=None):
        plain(self, found)
        self.register(plugin, "opinion", "opinion 1.0")

    monkeypatch.setattr(Plugins, "__init__", init)
    installed_plugins.cache_clear()


def test_a_plugin_decides_what_is_real_data(script, net, monkeypatch):
    with_plugin(monkeypatch, Opinion(real=True))
    with attached(script) as g:
        run_main(script, lambda: functional.cross_entropy(net.eval()(X), Y))
    assert g.ledger.guarded == 6
    monkeypatch.undo()
    with_plugin(monkeypatch, Opinion(real=False))
    with pytest.raises(NothingGuarded, match="6 not real data, says a plugin"), attached(script):
        run_main(script, lambda: functional.cross_entropy(net.train()(X), Y))


class FromSource:
    """A plugin that goes by what made the batch."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def is_real_data(self, call, source):
        self.seen.append(source)
        return False if source == "a copy of learned images" else None


@needs_torch(2, 0)
def test_a_plugin_is_told_what_made_the_batch_if_it_asks(script, net, monkeypatch):
    plugin = FromSource()
    with_plugin(monkeypatch, plugin)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), len(X))
    learned = torch.rand(X.shape, requires_grad=True)
    add, mode = torch.optim.Optimizer.add_param_group, len(torch.overrides._get_current_function_mode_stack())

    steps = iter([[(X, Y)]] * 3 + [loader] * 3)

    def train():
        for x, y in ((learned.detach().clone(), Y), (learned, Y), *next(steps)):
            functional.cross_entropy(net(x), y)

    with attached(script) as g:
        torch.optim.SGD([learned], lr=0.1)
        run_main(script, train)
    real = ["a tensor on which nothing is learned"] * 3 + ["a DataLoader over TensorDataset"] * 3
    assert plugin.seen[2::3] == real
    assert set(plugin.seen) - set(real) == {"a copy of learned images", "a leaf that requires grad"}
    assert g.ledger.guarded == 6 and g.ledger.skipped["not real data, says a plugin"] == 6
    assert torch.optim.Optimizer.add_param_group is add
    assert len(torch.overrides._get_current_function_mode_stack()) == mode


def test_nothing_is_followed_for_a_plugin_that_does_not_ask(script, net, monkeypatch):
    with_plugin(monkeypatch, Opinion(real=True))
    add = torch.optim.Optimizer.add_param_group
    with attached(script):
        assert torch.optim.Optimizer.add_param_group is add
        run_main(script, lambda: functional.cross_entropy(net(X), Y))


def test_a_plugin_computes_the_penalty(script, net, monkeypatch):
    with_plugin(monkeypatch, Opinion(value=lambda call: call.network.weight.sum() * 0 + 7.0))
    with attached(script) as g:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    assert g.ledger.values.to_json()["mean"] == 7.0


@pytest.mark.parametrize("value", [lambda call: 1.0, lambda call: call.network.weight])
def test_a_penalty_that_is_no_scalar_is_refused(script, net, monkeypatch, value):
    with_plugin(monkeypatch, Opinion(value=value))
    with (
        pytest.raises(UnsupportedLoss, match="expected penalty 'curvature' to be a scalar tensor, got"),
        attached(script),
    ):
        run_main(script, lambda: functional.cross_entropy(net(X), Y))


def by_a_copy(call):
    inputs, copied = call.inputs.clone().requires_grad_(), copy.deepcopy(call.network).eval()
    losses = call.loss_fn()(copied(inputs), call.targets)
    (gradient,) = torch.autograd.grad(losses.sum(), inputs, create_graph=True)
    return gradient.square().sum()


@pytest.mark.parametrize(
    "value", [by_a_copy, lambda call: call.loss.detach(), lambda call: torch.tensor(1.0, requires_grad=True) * 2]
)
def test_a_penalty_that_reaches_no_parameter_is_refused(script, net, monkeypatch, value):
    with_plugin(monkeypatch, Opinion(value=value))
    with pytest.raises(UnsupportedLoss, match="none does: a plugin .* by call.network itself"), attached(script):
        run_main(script, lambda: functional.cross_entropy(net(X), Y))


def test_a_penalty_may_reach_parameters_through_a_checkpoint(script, net, monkeypatch):
    def value(call):
        return checkpoint(call.network, call.inputs.clone().requires_grad_(), use_reentrant=True).square().mean()

    with_plugin(monkeypatch, Opinion(value=value))
    with attached(script) as g:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    assert g.ledger.guarded == 6


def test_a_penalty_that_is_not_finite_is_an_error(script, net, monkeypatch):
    with_plugin(monkeypatch, Opinion(value=lambda call: call.network.weight.sum() * torch.inf))
    with pytest.raises(NothingGuarded, match="found 6 of 6 that are not"), attached(script):
        run_main(script, lambda: functional.cross_entropy(net(X), Y))


def test_a_penalty_that_is_always_zero_is_an_error(script, net, monkeypatch):
    factors = iter([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])  # of two runs
    with_plugin(monkeypatch, Opinion(value=lambda call: call.loss * next(factors)))
    message = "expected a penalty that acts, found that the penalty was 0 in every guarded loss call: .*; look at h"
    with pytest.raises(NothingGuarded, match=message), attached(script):
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    with attached(script) as g:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    assert g.ledger.outcome == "complete"


class Wrapper:
    """A plugin around the core's own computation."""

    @guard_plugin.hookimpl(wrapper=True)
    def compute_penalty(self, call):
        return 2 * (yield)


def test_a_plugin_may_wrap_the_computation_of_the_penalty(script, net, monkeypatch):
    with attached(script) as plain:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    with_plugin(monkeypatch, Wrapper())
    with attached(script) as doubled:
        run_main(script, lambda: functional.cross_entropy(net(X), Y))
    values = [g.ledger.values.to_json()["first"] for g in (plain, doubled)]
    assert values[1] == pytest.approx(2 * values[0])
