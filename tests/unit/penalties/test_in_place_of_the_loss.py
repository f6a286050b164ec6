"""What the host gets: its loss and the penalty, or the penalty in place of a part of its loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import PluginError, UnsupportedLoss, UnusableInput
from guard_plugin.penalties import FastTraining, GradientNorm, PgdTraining, Trades
from tests.unit.penalties.linear import batch, binary, cross_entropy

EPS = 0.3
KINDS = {kind.name: kind for kind in (PgdTraining, FastTraining, Trades, GradientNorm)}


@pytest.mark.parametrize(
    ("name", "strength", "kept"),
    [
        ("pgd_at", 1.0, 0.0),
        ("pgd_at", 0.25, 0.75),
        ("fast", 1.0, 0.0),
        ("trades", 3.0, 1.0),
        ("gradient_norm", 3.0, 1.0),
    ],
)
def test_the_host_gets_the_part_that_is_kept_and_the_term(name, strength, kept):
    net, (x, y) = binary(), batch()
    settings = {"strength": strength, **({} if name == "gradient_norm" else {"eps": EPS})}
    loss = guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty=name, **settings)(net(x), y)
    term = KINDS[name](**settings).at(0)(net, x, y, loss_fn=cross_entropy)
    torch.testing.assert_close(loss, kept * functional.cross_entropy(net(x), y) + term)
    loss.backward()
    assert net.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", KINDS)
def test_at_strength_zero_the_host_gets_its_own_loss_and_no_pass_is_made(name):
    net, (x, y) = binary(), batch()
    settings = {} if name == "gradient_norm" else {"eps": EPS}
    criterion, calls = guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty=name, strength=0, **settings), []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    output, random = net(x), torch.get_rng_state()
    assert torch.equal(criterion(output, y), functional.cross_entropy(output, y))
    assert len(calls) == 1 and criterion.guarded == 1 and torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0])),
        nn.CrossEntropyLoss(ignore_index=0),
    ],
)
def test_a_loss_of_another_scale_than_the_mean_is_not_replaced(criterion):
    net, (x, y) = binary(), batch()
    with pytest.raises(UnsupportedLoss, match="which penalty 'pgd_at' replaces, to return the mean"):
        guard_plugin.wrap(criterion, net, penalty="pgd_at", eps=EPS)(net(x), y)
    guard_plugin.wrap(criterion, net, penalty="trades", eps=EPS)(net(x), y)


HOSTS_STEPS = {
    "scaled": (lambda out: out / 4, nn.CrossEntropyLoss()),
    "sliced": (lambda out: out[:, :2], nn.CrossEntropyLoss()),
    "log of softmax": (lambda out: out.softmax(1).log_softmax(1), nn.CrossEntropyLoss()),
    "log-probabilities": (lambda out: out.log_softmax(1), nn.NLLLoss()),
}


@pytest.mark.parametrize(("step", "judge"), HOSTS_STEPS.values(), ids=HOSTS_STEPS)
@pytest.mark.parametrize("name", ["pgd_at", "fast", "trades"])
def test_what_the_host_does_to_the_output_belongs_to_the_network(name, step, judge):
    class Whole(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return step(self.net(x))

    torch.manual_seed(0)
    net, x, y = nn.Linear(5, 3), torch.randn(4, 5), torch.tensor([0, 1, 1, 0])
    whole, settings = Whole(net), {"penalty": name, "eps": EPS}
    outside = guard_plugin.wrap(judge, net, **settings)(step(net(x)), y)
    inside = guard_plugin.wrap(judge, whole, **settings)(whole(x), y)
    torch.testing.assert_close(outside, inside)


def test_label_smoothing_is_kept_in_the_adversarial_loss():
    net, (x, y) = binary(), batch()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(label_smoothing=0.2), net, penalty="pgd_at", eps=1e-9)
    expected = functional.cross_entropy(net(x), y, label_smoothing=0.2)
    torch.testing.assert_close(criterion(net(x), y), expected)


def test_a_combination_that_does_not_exist_is_refused():
    class Misspelt(GradientNorm):
        combination = "replace"

    with pytest.raises(PluginError, match="expected combination to be one of added, replaces, got 'replace'"):
        Misspelt(strength=1.0)


def test_free_adversarial_training_is_refused_with_the_reason():
    with pytest.raises(UnusableInput, match="'free': .* updates the network several times .* use 'fast'"):
        guard_plugin.wrap(nn.CrossEntropyLoss(), binary(), penalty="free", eps=EPS)


class Overflows(nn.Module):
    """Its first pass, the host's, overflows."""

    def __init__(self):
        super().__init__()
        self.inner, self.passes = nn.Linear(5, 2), 0

    def forward(self, x):
        self.passes += 1
        output = self.inner(x)
        return output + torch.inf if self.passes == 1 else output


def test_what_ddp_is_passed_is_zero_even_where_the_hosts_loss_is_not_finite(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net, (x, y) = nn.parallel.DistributedDataParallel(Overflows(), static_graph=True), batch()
        loss = guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty="pgd_at", eps=EPS)(net(x), y)
        loss.backward()
    finally:
        torch.distributed.destroy_process_group()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in net.parameters())
