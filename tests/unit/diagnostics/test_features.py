"""Penultimate features, Lipschitz constants, and the ascent in a ball."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from guard_plugin.diagnostics import Ascent, lipschitz_of_head, penultimate
from guard_plugin.diagnostics.features import largest_slope
from guard_plugin.errors import UnusableInput
from guard_plugin.networks.architectures import build_network
from guard_plugin.penalties.per_example import Losses, cross_entropy


def test_penultimate_features_are_what_the_convnets_classifier_takes():
    network = build_network("ConvNetD1", channels=1, num_classes=10, im_size=(8, 8)).eval()
    x = torch.rand(3, 1, 8, 8)
    features = penultimate(network, x)
    torch.testing.assert_close(features(x), network.features(x).flatten(1).detach())
    assert features.head is network.classifier


def test_penultimate_features_of_an_mlp_are_its_last_hidden_layer():
    network = build_network("MLP", channels=1, num_classes=10, im_size=(8, 8)).eval()
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(penultimate(network, x)(x), nn.Sequential(*list(network)[:-1])(x).detach())


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(dim=1)), "'1' is not the network's"),
        (nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()), "it has none"),
    ],
)
def test_a_network_without_a_linear_last_layer_is_refused(network, found):
    with pytest.raises(UnusableInput, match=found):
        penultimate(network.eval(), torch.rand(1, 1, 2, 2))


def test_looking_for_features_leaves_no_hook():
    network = build_network("MLP", channels=1, num_classes=10, im_size=(8, 8)).eval()
    penultimate(network, torch.rand(1, 1, 8, 8))(torch.rand(1, 1, 8, 8))
    assert not any(module._forward_pre_hooks for module in network.modules())


def feature_gradients(head: nn.Linear, label: int, features: torch.Tensor) -> torch.Tensor:
    features = features.requires_grad_()
    loss = functional.cross_entropy(head(features), torch.full((len(features),), label), reduction="sum")
    return torch.autograd.grad(loss, features)[0].norm(dim=1)


def test_no_gradient_by_the_features_is_longer_than_the_lipschitz_constant():
    head = nn.Linear(5, 4).double()
    for label in range(4):
        longest = feature_gradients(head, label, 100 * torch.randn(5000, 5, dtype=torch.float64)).max()
        assert longest.item() <= lipschitz_of_head(head, label) * (1 + 1e-12)


def test_the_lipschitz_constant_is_reached_where_the_farthest_class_is_certain():
    head = nn.Linear(5, 4).double()
    away = (head.weight - head.weight[2]).norm(dim=1).argmax()
    certain = 1e4 * torch.linalg.pinv(head.weight.detach())[:, away]
    reached = feature_gradients(head, 2, certain[None].clone())
    assert reached.item() == pytest.approx(lipschitz_of_head(head, 2), rel=1e-9)


def test_the_largest_slope_is_that_of_the_steepest_pair():
    losses, features = torch.tensor([0.0, 3.0, 3.4]), torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    assert largest_slope(losses, features) == pytest.approx(3.0 / 5.0)


def test_equal_features_have_no_slope():
    assert largest_slope(torch.tensor([0.0, 1.0]), torch.zeros(2, 3)) == 0.0


def on_the_circle(losses, center: torch.Tensor, rho: float) -> float:
    angles = torch.linspace(0, 2 * math.pi, 20001, dtype=torch.float64)[:, None]
    return losses(center + rho * torch.cat([angles.cos(), angles.sin()], dim=1)).max().item()


@pytest.mark.parametrize("rho", [0.1, 1.0, 5.0])
def test_the_ascent_finds_the_maximum_of_a_convex_loss_on_the_circle(rho):
    linear = nn.Linear(2, 4).double()
    x, y = torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor([1])
    found = Ascent(steps=60)(Losses(linear, y, cross_entropy), x, rho, torch.tensor([0]))
    expected = on_the_circle(lambda points: Losses(linear, y.expand(len(points)), cross_entropy)(points), x, rho)
    assert Losses(linear, y, cross_entropy)(found).item() == pytest.approx(expected, rel=1e-4)
    assert (found - x).norm().item() <= rho * (1 + 1e-12)


def test_the_ascent_keeps_the_best_point_where_its_steps_overshoot():
    x = torch.tensor([[0.1]], dtype=torch.float64)
    hill = lambda v: 2 - v.square().sum(dim=1)  # noqa: E731
    # From 0.1 the one step goes past the summit, to the other end of the ball.
    found = Ascent(steps=1, random_starts=0)(hill, x, 1.5, torch.tensor([0]))
    assert torch.equal(found, x)


def test_a_random_start_leaves_a_place_without_gradient():
    x = torch.zeros(1, 2, dtype=torch.float64)
    valley = lambda v: v.square().sum(dim=1)  # noqa: E731
    stuck, gone = (Ascent(random_starts=n)(valley, x, 2.0, torch.tensor([0])) for n in (0, 1))
    assert (valley(stuck).item(), valley(gone).item()) == pytest.approx((0.0, 4.0))


@pytest.mark.parametrize("setting", [{"steps": 0}, {"random_starts": -1}])
def test_ascent_settings_out_of_range_are_refused(setting):
    with pytest.raises(UnusableInput, match="expected steps"):
        Ascent(**setting)
