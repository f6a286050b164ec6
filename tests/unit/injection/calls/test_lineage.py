"""What was computed from learned tensors, and which of it is real images that were changed a little."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from guard_plugin.injection.calls.lineage import Lineage
from guard_plugin.versions import TORCH

pytestmark = pytest.mark.skipif(TORCH < (2, 0), reason="lineage is followed from torch 2.0 on")


@pytest.fixture
def optimized():
    """The tensors that an optimizer has."""
    return []


@pytest.fixture
def lineage(optimized):
    with Lineage(lambda tensor: any(tensor is one for one in optimized)) as followed:
        yield followed


def kind(lineage: Lineage, tensor: torch.Tensor) -> str:
    if lineage.perturbed(tensor) is not None:
        return "perturbed"
    if lineage.changed_by_gradients(tensor):
        return "changed"
    return "learned" if lineage.is_learned(tensor) else "data"


def test_copies_of_what_an_optimizer_has_are_learned(lineage, optimized):
    learned = torch.rand(4, 3, requires_grad=True)
    early = learned.detach().clone()
    optimized.append(learned)
    assert kind(lineage, early) == "learned"  # the optimizer came later
    for one in (learned.detach(), copy.deepcopy(learned.detach()), learned.detach() + 0.01 * torch.rand(4, 3)):
        assert kind(lineage, one) == "learned"


def test_what_a_network_returns_is_learned(lineage):
    decoder = nn.Linear(2, 3)
    with torch.no_grad():
        assert kind(lineage, decoder(torch.rand(4, 2))) == "learned"
    assert kind(lineage, decoder(torch.rand(4, 2)).detach() + torch.rand(4, 3)) == "learned"


def steps(data: torch.Tensor, attack: str, eps: float = 0.03) -> torch.Tensor:
    """Change data along the gradients of a loss, in the ways that adversarial training is written."""
    network = nn.Linear(data.shape[1], 2)
    changed = (data + torch.empty_like(data).uniform_(-eps, eps)).detach()
    if attack == "delta":
        delta = torch.zeros_like(data, requires_grad=True)
        network(data + delta).square().sum().backward()
        return (data + delta.detach() + eps * delta.grad.sign()).clamp(0, 1)
    if attack == "delta in the graph":
        delta = torch.zeros_like(data, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(data + delta).sum(), delta)
        return (data + eps * gradient.sign() + delta).detach()
    if attack == "one step":
        changed.requires_grad_()
        (gradient,) = torch.autograd.grad(network(changed).square().sum(), changed)
        return (changed + eps * gradient.sign()).detach()
    for _ in range(3):
        changed.requires_grad = True
        (gradient,) = torch.autograd.grad(network(changed).square().sum(), changed)
        changed = changed.detach() + 0.5 * eps * gradient.sign()
        changed = torch.min(torch.max(changed, data - eps), data + eps).detach()
    return changed


@pytest.mark.parametrize("attack", ["projected", "delta", "delta in the graph"])
def test_adversarial_examples_of_data_are_known_with_the_data(lineage, attack):
    data = torch.rand(4, 3)
    found = lineage.perturbed(steps(data, attack))
    assert found is not None and (found - data).abs().max() <= 0.0301


def test_they_are_known_where_the_attack_clips_to_another_range(lineage):
    """As where images are normalized, and the attack takes them for pixels."""
    data = 2 * torch.randn(16, 50)
    changed = steps(data, "projected").clamp(0, 1)
    assert lineage.perturbed(changed) is not None and (changed - data).abs().max() > 2


@pytest.mark.parametrize("attack", ["projected", "delta", "delta in the graph"])
def test_adversarial_examples_of_learned_images_are_learned(lineage, optimized, attack):
    learned = torch.rand(4, 3, requires_grad=True)
    optimized.append(learned)
    assert kind(lineage, steps(learned.detach().clone(), attack)) == "learned"


def test_what_is_not_measured_against_data_may_be_learned_by_hand(lineage):
    assert kind(lineage, steps(torch.rand(4, 3), "one step")) == "changed"
    images = torch.rand(4, 3)
    for _ in range(3):
        images.requires_grad = True
        images = (images - 0.1 * torch.autograd.grad(images.square().sum(), images)[0]).detach()
    assert kind(lineage, images) == "changed"
    noisy = images + 5 * torch.rand(4, 3)  # a tensor took part that it is no small change of
    assert kind(lineage, noisy.flip(0)) == "changed"


def test_of_one_row_it_cannot_be_told_which_data_it_is_a_small_change_of(lineage):
    images = torch.rand(1, 3)
    for _ in range(3):
        images.requires_grad = True
        gradient = torch.autograd.grad(images.square().sum(), images)[0]
        images = ((images - 0.1 * gradient).detach() + 5 * torch.rand(1, 3)).detach()
    assert kind(lineage, images) == "changed"


def test_data_stay_data(lineage):
    data = torch.rand(4, 3)
    learned = torch.rand(4, 3, requires_grad=True)
    (data * learned).sum().backward()
    assert kind(lineage, data) == kind(lineage, data[learned[:, 0].argsort()]) == "data"


def test_nothing_is_kept_alive(lineage):
    data = torch.rand(4, 3)
    changed = steps(data, "projected")
    data.add_(0 * changed)  # in place, and beside itself
    assert lineage._descents
    del changed, data
    assert not lineage._descents
