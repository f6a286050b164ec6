"""What an autograd graph tells."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties import Curvature, FastTraining, GradientNorm, PgdTraining, Trades
from guard_plugin.penalties.graph import (
    ComputedBefore,
    Mark,
    NoSecondDerivative,
    check_differentiable,
    gradient_for_batch,
    reached_leaves,
)
from guard_plugin.penalties.per_example import cross_entropy
from tests.versions import needs_fast_paths


def the_same(got: list[Tensor], wanted: list[Tensor]) -> bool:
    return sorted(map(id, got)) == sorted(map(id, wanted)) and len(got) == len(set(map(id, got)))


def test_a_flat_parameter_is_reached_through_its_views():
    flat = nn.Parameter(torch.randn(6))
    w, b = flat[:4].view(2, 2), flat[4:]
    assert the_same(reached_leaves((torch.randn(3, 2) @ w + b).sum()), [flat])


def test_learnable_labels_are_reached():
    net, labels = nn.Linear(2, 3), torch.randn(4, 3, requires_grad=True)
    loss = nn.functional.cross_entropy(net(torch.randn(4, 2)), labels.softmax(1))
    assert the_same(reached_leaves(loss), [net.weight, net.bias, labels])


def test_a_shared_parameter_is_reached_once():
    a, b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    b.weight = a.weight
    assert the_same(reached_leaves(b(a(torch.randn(3, 2))).sum(), a(torch.randn(3, 2)).sum()), [a.weight])


def test_leaves_may_be_left_out():
    x, net = torch.randn(3, 2, requires_grad=True), nn.Linear(2, 2)
    assert the_same(reached_leaves(net(x), but=[x]), [net.weight, net.bias])


def test_beyond_a_tensor_nothing_is_reached_but_by_other_ways():
    net, scale = nn.Linear(2, 2), torch.randn(2, requires_grad=True)
    output = net(torch.randn(3, 2))
    loss = (output * scale).sum() + net.bias.square().sum()
    assert the_same(reached_leaves(loss, beyond=output), [scale, net.bias])
    assert the_same(reached_leaves(loss), [scale, net.bias, net.weight])


def test_a_leaf_reaches_itself_and_what_has_no_graph_nothing():
    leaf = torch.randn(2, requires_grad=True)
    assert the_same(reached_leaves(leaf), [leaf])
    assert reached_leaves(torch.randn(2), (leaf * 2).detach()) == [] == reached_leaves()


def test_frozen_parameters_are_not_reached():
    net = nn.Linear(2, 2)
    net.weight.requires_grad_(False)
    assert the_same(reached_leaves(net(torch.randn(3, 2))), [net.bias])


@needs_fast_paths
def test_what_was_computed_before_a_mark_is_found():
    w = torch.randn(2, 2, requires_grad=True)
    before = w * 2
    mark = Mark()
    x = torch.randn(3, 2)
    assert the_same(reached_leaves((x @ w).sum(), since=mark), [w])
    with pytest.raises(ComputedBefore):
        reached_leaves((x @ before).sum(), since=mark)
    assert the_same(reached_leaves((x @ before).sum(), since=None), [w])


@pytest.mark.parametrize(("function", "twice"), [(functional.hardsigmoid, False), (torch.tanh, True)])
def test_a_missing_second_derivative_is_found(function, twice):
    x = torch.randn(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    if twice:
        check_differentiable(gradient)
        return
    for find in (check_differentiable, reached_leaves):
        with pytest.raises(NoSecondDerivative):
            find(gradient)


class CutOff(nn.Module):
    """A network that no gradient passes: at its input, or as a whole where it is evaluated."""

    def __init__(self, cut: str) -> None:
        super().__init__()
        self.net, self.cut = nn.Linear(5, 3), cut

    def forward(self, x: Tensor) -> Tensor:
        if self.cut == "numpy":
            x = torch.from_numpy(2 * x.detach().numpy())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.cut != "no_grad"):
            x = (x - 0.5) / 2
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.training or self.cut != "evaluation")):
            return self.net(x)


PENALTIES = [
    Curvature(strength=1.0, h=0.5),
    Curvature(strength=1.0, h=0.5, form="loss"),
    GradientNorm(strength=1.0),
    PgdTraining(eps=0.1),
    FastTraining(eps=0.1),
    Trades(eps=0.1),
]


@pytest.mark.parametrize("cut", ["numpy", "no_grad", "evaluation"])
@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: f"{penalty.name} {getattr(penalty, 'form', '')}")
def test_a_network_that_cuts_its_input_off_is_refused(penalty, cut):
    net = CutOff(cut)
    with pytest.raises(UnsupportedLoss, match="to depend on the network's batch, .*; apply this step to the batch"):
        penalty(net, torch.randn(4, 5), torch.tensor([0, 1, 2, 1]), loss_fn=cross_entropy)
    assert net.training


def test_a_part_of_a_batch_may_be_cut_off():
    x, weight = torch.randn(4, 5, requires_grad=True), torch.randn(5)
    gradient = gradient_for_batch(torch.cat([x[:2], x[2:].detach()]) @ weight, x)
    assert torch.equal(gradient, torch.cat([weight.expand(2, 5), torch.zeros(2, 5)]))
