"""The gradient norm against softmax regression, whose input gradient is W^T (p - y)."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from guard_plugin.penalties import Curvature, GradientNorm
from tests.unit.penalties.linear import cross_entropy
from tests.versions import needs_torch

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("soft", [False, True])
def test_softmax_regression(soft):
    net, x = nn.Linear(5, 3), torch.randn(4, 5)
    classes = torch.tensor([0, 1, 2, 1])
    y = torch.softmax(torch.randn(4, 3), dim=1) if soft else classes
    probabilities = y if soft else functional.one_hot(classes, 3).double()
    expected = 2.0 * ((torch.softmax(net(x), 1) - probabilities) @ net.weight).square().sum(1).mean()
    value = GradientNorm(strength=2.0)(net, x, y, loss_fn=cross_entropy)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    wanted = torch.autograd.grad(expected, list(net.parameters()))
    torch.testing.assert_close(torch.autograd.grad(value, list(net.parameters())), wanted, rtol=1e-10, atol=1e-12)


def test_everything_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 1])
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    GradientNorm(strength=1.0)(net, x, y, loss_fn=cross_entropy).backward()
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_under_autocast_it_is_in_full_precision():
    net, x, y = nn.Linear(5, 3).float(), torch.randn(4, 5).float(), torch.tensor([0, 1, 2, 1])
    expected = GradientNorm(strength=1.0)(net, x, y, loss_fn=cross_entropy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(GradientNorm(strength=1.0)(net, x, y, loss_fn=cross_entropy), expected)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.project, self.classify = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.project(x)[:, None].chunk(3, dim=-1)
        return self.classify(functional.scaled_dot_product_attention(q, k, v).mean(dim=(1, 2)))


@needs_torch(2, 0)
@pytest.mark.parametrize(
    "penalty", [GradientNorm(strength=1.0), Curvature(strength=1.0, h=0.5)], ids=lambda penalty: penalty.name
)
def test_networks_with_fused_attention_are_differentiated_twice(penalty):
    net, x, y = Attends(), torch.randn(2, 5, 4), torch.tensor([0, 2])
    value = penalty(net, x, y, loss_fn=cross_entropy)
    (gradient,) = torch.autograd.grad(value, [net.project.weight])
    assert gradient.abs().sum() > 0
