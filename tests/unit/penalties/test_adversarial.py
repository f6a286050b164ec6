"""Adversarial training against linear models, where the worst case is x - eps * sign(w) * y."""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional

from guard_plugin.errors import UnusableInput
from guard_plugin.penalties import FastTraining, PgdTraining, Trades
from guard_plugin.versions import strict_zip
from tests.unit.penalties.linear import batch, binary, cross_entropy, log_odds, signs

pytestmark = pytest.mark.usefixtures("float64")

EPS = 0.3
PENALTIES = [PgdTraining(eps=EPS), FastTraining(eps=EPS), Trades(eps=EPS, strength=2.0)]
BY_NAME = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: penalty.name)


def gradients(value, net):
    return torch.autograd.grad(value, list(net.parameters()), retain_graph=True)


def assert_same_with_gradients(value, expected, net):
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients(value, net), gradients(expected, net), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("strength", [1.0, 0.25])
@pytest.mark.parametrize("kind", [PgdTraining, FastTraining])
def test_the_loss_is_that_of_the_worst_case(kind, strength):
    """8 steps of eps / 4, or one of 2 eps, cross the ball from wherever the search starts."""
    settings = {"steps": 8} if kind is PgdTraining else {"rel_step_size": 2.0}
    net, (x, y) = binary(), batch()
    w, odds = log_odds(net, x)
    expected = strength * functional.softplus(-(signs(y) * odds - EPS * w.abs().sum())).mean()
    value = kind(eps=EPS, strength=strength, **settings)(net, x, y, loss_fn=cross_entropy)
    assert_same_with_gradients(value, expected, net)


@pytest.mark.parametrize("penalty", [PgdTraining(eps=EPS, seed=5), FastTraining(eps=EPS, seed=5)])
def test_the_search_starts_uniformly_and_makes_the_papers_steps(penalty):
    """Not every start is far enough on its way: 7 steps of eps / 4, or one of 1.25 eps, each projected."""
    net, (x, y) = binary(), batch(40)
    w, odds = log_odds(net, x)
    away = -signs(y)[:, None] * w.sign()
    start = EPS * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) - 1)
    travelled = EPS * (7 * 0.25 if penalty.name == "pgd_at" else 1.25)
    moved = (start + travelled * away).clamp(-EPS, EPS)
    assert (moved != EPS * away).any()
    expected = functional.softplus(-signs(y) * (odds + moved @ w)).mean()
    assert_same_with_gradients(penalty(net, x, y, loss_fn=cross_entropy), expected, net)


def trades_at_the_ends(net, x):
    """Both of what TRADES may find for each example: the divergence grows towards either end of the ball."""
    w, odds = log_odds(net, x)
    ends = [Bernoulli(logits=odds + sign * EPS * w.abs().sum()) for sign in (1, -1)]
    return [6.0 * kl_divergence(Bernoulli(logits=odds), end) for end in ends]


def test_trades_finds_the_ends_of_the_ball_and_the_worse_one_from_some_start():
    net, (x, y) = binary(), batch(1)
    ends = trades_at_the_ends(net, x)
    values = [Trades(eps=EPS, seed=seed)(net, x, y, loss_fn=cross_entropy) for seed in range(12)]
    found = [0 if torch.isclose(value, ends[0]) else 1 for value in values]
    assert set(found) == {0, 1}
    for value, end in strict_zip(values, found):
        assert_same_with_gradients(value, ends[end].mean(), net)


def test_trades_averages_over_the_batch():
    net, (x, y) = binary(), batch(3)
    upper, lower = trades_at_the_ends(net, x)
    means = [torch.where(torch.tensor(up), upper, lower).mean() for up in product([True, False], repeat=3)]
    value = Trades(eps=EPS)(net, x, y, loss_fn=cross_entropy)
    assert sum(bool(torch.isclose(value, mean)) for mean in means) == 1


def test_trades_averages_over_positions():
    net, (x, y) = binary(), batch(3)

    class Dense(nn.Module):
        """The same prediction at each position."""

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)[:, :, None, None].expand(-1, -1, 2, 3)

    expected = Trades(eps=EPS)(net, x, y, loss_fn=cross_entropy)
    everywhere = y[:, None, None].expand(-1, 2, 3)

    def mean_loss(output, target):
        return cross_entropy(output, target).flatten(1).mean(dim=1)

    torch.testing.assert_close(Trades(eps=EPS)(Dense(), x, everywhere, loss_fn=mean_loss), expected)


def test_with_mean_and_std_eps_is_in_pixels_and_examples_stay_pictures():
    mean, std = (0.4, 0.5), (0.2, 0.25)
    as_column = [torch.tensor(v).view(1, 2, 1, 1) for v in (mean, std)]
    net = nn.Sequential(nn.Flatten(), binary(8))
    pixels, y = torch.rand(6, 2, 2, 2), torch.arange(6) % 2
    away = (-signs(y)[:, None] * (net[1].weight[1] - net[1].weight[0]).sign()).view_as(pixels).detach()
    worst = (pixels + EPS * away).clamp(0, 1)
    # Augmentation may leave the range: such a value may stay, and go no further.
    beyond = torch.arange(8).view(2, 2, 2) < 3
    pixels[:, beyond], worst[:, beyond] = 0.5 + 0.75 * away[:, beyond], 0.5 + 0.75 * away[:, beyond]
    x = (pixels - as_column[0]) / as_column[1]
    expected = cross_entropy(net((worst - as_column[0]) / as_column[1]), y).mean()
    value = PgdTraining(eps=EPS, steps=8, mean=mean, std=std)(net, x, y, loss_fn=cross_entropy)
    assert_same_with_gradients(value, expected, net)
    unclipped = PgdTraining(eps=EPS, steps=8)(net, x, y, loss_fn=cross_entropy)
    assert not torch.isclose(unclipped, expected)


def as_in_dc():
    """One BatchNorm in train, one frozen, and dropout; and each pass that is made: in train?, on which inputs?"""
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    net[2].eval()
    passes = []
    net.register_forward_pre_hook(lambda module, args: passes.append((module.training, args[0].detach().clone())))
    return net, passes


@BY_NAME
def test_the_search_is_in_evaluation_and_the_last_passes_train(penalty):
    (net, passes), (x, y) = as_in_dc(), batch()
    penalty(net, x, y, loss_fn=cross_entropy)
    searching, training = {"pgd_at": (7, 1), "fast": (1, 1), "trades": (11, 2)}[penalty.name]
    assert [in_train for in_train, _ in passes] == [False] * searching + [True] * training


@BY_NAME
def test_running_statistics_run_on_with_the_passes_that_train_and_frozen_ones_stay(penalty):
    (net, passes), (x, y) = as_in_dc(), batch()
    oracle = nn.BatchNorm1d(4)
    penalty(net, x, y, loss_fn=cross_entropy)
    for inputs in [inputs for in_train, inputs in passes if in_train]:
        oracle(net[0](inputs))
    for name, value in oracle.named_buffers():
        torch.testing.assert_close(getattr(net[1], name), value)
    assert torch.equal(net[2].running_mean, torch.zeros(4)) and net[2].num_batches_tracked == 0


@BY_NAME
def test_all_else_is_left_as_it_was(penalty):
    (net, _), (x, y) = as_in_dc(), batch()
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    grads, flags = [p.grad.clone() for p in net.parameters()], [m.training for m in net.modules()]
    weights = [p.detach().clone() for p in net.parameters()]
    before, random = x.clone(), torch.get_rng_state()
    penalty(net, x, y, loss_fn=cross_entropy)
    assert torch.equal(torch.get_rng_state(), random) and torch.equal(x, before)
    assert [m.training for m in net.modules()] == flags
    assert all(torch.equal(p.grad, g) for p, g in strict_zip(net.parameters(), grads))
    assert all(torch.equal(p, w) for p, w in strict_zip(net.parameters(), weights))


@BY_NAME
def test_each_call_has_random_numbers_of_its_own_that_the_seed_determines(penalty):
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    x, y = batch()

    def value(penalty):
        return penalty(net, x, y, loss_fn=cross_entropy).item()

    first = value(penalty.at(0))
    torch.manual_seed(99)
    assert value(penalty.at(0)) == first
    assert value(penalty.at(1)) != first
    assert value(type(penalty)(eps=EPS, strength=penalty.strength, seed=1).at(0)) != first


@BY_NAME
def test_under_autocast_it_is_in_full_precision(penalty):
    net, (x, y) = binary().float(), batch()
    expected = penalty(net, x.float(), y, loss_fn=cross_entropy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(penalty(net, x.float(), y, loss_fn=cross_entropy), expected)
    assert penalty(net, x.bfloat16(), y, loss_fn=cross_entropy).dtype == torch.float32


@BY_NAME
def test_a_network_that_begins_in_place_does_not_change_the_hosts_batch(penalty):
    net, (x, y) = nn.Sequential(nn.ReLU(inplace=True), binary()), batch()
    before = x.clone()
    penalty(net, x, y, loss_fn=cross_entropy).backward()
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (PgdTraining, {"eps": 0.0}, "expected eps to be a finite number > 0, got 0.0"),
        (PgdTraining, {"eps": math.inf}, "expected eps .* got inf"),
        (PgdTraining, {"strength": 1.5}, "expected strength between 0 and 1, as 'pgd_at' replaces .* got 1.5"),
        (PgdTraining, {"steps": 0}, "expected steps >= 1"),
        (PgdTraining, {"eps_ramp": -1}, "expected eps_ramp >= 0"),
        (PgdTraining, {"seed": -1}, "expected seed >= 0"),
        (PgdTraining, {"mean": (0.5,)}, "as many means as standard deviations"),
        (PgdTraining, {"std": (0.5,), "mean": (math.nan,)}, "expected mean to be finite numbers, one per channel"),
        (PgdTraining, {"mean": 0.5, "std": 0.5}, "expected mean to be finite numbers, one per channel, got 0.5"),
        (FastTraining, {"rel_step_size": -1.0}, "expected rel_step_size .* > 0, got -1.0"),
        (Trades, {"steps": 1.5}, "expected steps >= 1"),
    ],
)
def test_unusable_settings_are_refused(kind, change, message):
    with pytest.raises(UnusableInput, match=message):
        kind(**{"eps": EPS, **change})


def test_a_batch_of_other_channels_than_mean_and_std_is_refused():
    net = nn.Sequential(nn.Flatten(), binary(12))
    penalty = PgdTraining(eps=EPS, mean=(0.5,), std=(0.5,))
    with pytest.raises(UnusableInput, match=r"expected images of 1 channel\(s\), got shape \(2, 3, 2, 2\)"):
        penalty(net, torch.randn(2, 3, 2, 2), torch.tensor([0, 1]), loss_fn=cross_entropy)


@BY_NAME
def test_dropout_masks_are_neither_the_hosts_last_nor_its_next(penalty):
    """The masks of the passes that train, which the seed of the call determines."""
    (net, _), (x, y), masks = as_in_dc(), batch(), []
    net[3].register_forward_hook(lambda module, args, output: masks.append(output != 0) if module.training else None)

    def trained() -> torch.Tensor:
        masks.clear()
        penalty.at(0)(net, x, y, loss_fn=cross_entropy)
        return torch.stack(masks)

    first = trained()
    net(x)
    host = masks[-1]
    assert all((mask != host).any() for mask in first) and torch.equal(trained(), first)
    for stream in (0, 1):  # the same whatever the host's streams are
        torch.manual_seed(stream)
        assert torch.equal(trained(), first)


def test_trades_leaves_out_what_the_host_ignores():
    net, (x, _), y = nn.Linear(5, 3), batch(4), torch.tensor([0, -100, 2, -100])
    other = x + torch.randn(4, 5) * (y == -100)[:, None]
    values = [Trades(eps=EPS)(net, inputs, y, loss_fn=cross_entropy) for inputs in (x, other)]
    unmasked = Trades(eps=EPS)(net, x, torch.zeros_like(y), loss_fn=cross_entropy)
    assert_same_with_gradients(*values, net)
    assert 0 < values[0] < unmasked
