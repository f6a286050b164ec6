"""One line in any training script."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

import guard_plugin
from guard_plugin.errors import UnsupportedLoss, UnusableInput

X, Y = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.parametrize("form", ["gradient", "loss"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_in_training_carries_the_penalty(net, form, smoothing):
    criterion = nn.CrossEntropyLoss(label_smoothing=smoothing)
    guarded = guard_plugin.wrap(criterion, net, strength=2.0, h=0.5, form=form)

    def losses(output, target):
        return functional.cross_entropy(output, target, reduction="none", label_smoothing=smoothing)

    penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.5, strength=2.0, form=form, loss_fn=losses)
    torch.testing.assert_close(guarded(input=net(X), target=Y), criterion(net(X), Y) + penalty)
    assert penalty > 0 and guarded.guarded == 1


def test_training_with_it_lowers_the_penalty(net):
    def final_penalty(strength: float) -> float:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=strength, h=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(60):
            optimizer.zero_grad()
            criterion(model(X), Y).backward()
            optimizer.step()
        return guard_plugin.curvature_penalty(model, X, Y, h=0.5, strength=1.0).item()

    assert final_penalty(5.0) < 0.5 * final_penalty(0.0)


def test_what_is_not_training_on_real_data_keeps_its_loss(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    plain = functional.cross_entropy(net(X), Y)
    with torch.no_grad():
        assert torch.equal(criterion(net(X), Y), plain)
    assert torch.equal(criterion(net(X.clone().requires_grad_()), Y), plain)
    net.eval()
    assert torch.equal(criterion(net(X), Y), plain)
    assert criterion.guarded == 0


def test_a_network_without_trainable_parameters_keeps_its_loss():
    class Functional(nn.Module):
        """As MTT's ReparamModule: what is trained is a tensor, and no parameter of the network."""

        def __init__(self):
            super().__init__()
            self.register_buffer("flat", torch.randn(5, 3, requires_grad=True))

        def forward(self, x):
            return x @ self.flat

    net = Functional()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    assert torch.equal(criterion(net(X), Y), functional.cross_entropy(net(X), Y)) and criterion.guarded == 0


def test_a_loss_of_ones_own(net):
    def focal(output, target):
        ce = functional.cross_entropy(output, target, reduction="none")
        return (1 - torch.exp(-ce)) ** 2 * ce

    def mean_focal(output, target):
        return focal(output, target).mean()

    with pytest.raises(UnsupportedLoss, match="found function"):
        guard_plugin.wrap(mean_focal, net, strength=2.0, h=0.5)
    criterion = guard_plugin.wrap(mean_focal, net, strength=2.0, h=0.5, loss_fn=focal)
    penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.5, strength=2.0, loss_fn=focal)
    torch.testing.assert_close(criterion(net(X), Y), mean_focal(net(X), Y) + penalty)


def test_strength_zero_adds_nothing(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=0, h=0.5)
    assert torch.equal(criterion(net(X), Y), functional.cross_entropy(net(X), Y))
    assert criterion.guarded == 1


def test_an_output_of_another_network_is_refused(net):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    with pytest.raises(UnsupportedLoss, match="a network's own output"):
        criterion(copy.deepcopy(net)(X), Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.0}, "penalty 'curvature' needs h"),
        ({"h": 1.0}, "needs strength"),
        ({"strength": 1.0, "h": 1.0, "lamda": 3}, "has no setting lamda"),
        ({"strength": 1.0, "h": 1.0, "penalty": "curvatur"}, "did you mean 'curvature'"),
    ],
)
def test_unusable_settings_are_refused(net, options, message):
    with pytest.raises(UnusableInput, match=message):
        guard_plugin.wrap(nn.CrossEntropyLoss(), net, **options)


def test_hooks_go_with_the_criterion(net):
    before = len(torch_module._global_forward_hooks)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    assert len(torch_module._global_forward_hooks) == before + 1
    criterion.unwrap()
    assert len(torch_module._global_forward_hooks) == before
    assert torch.equal(criterion(net(X), Y), functional.cross_entropy(net(X), Y))
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    del criterion
    gc.collect()
    assert len(torch_module._global_forward_hooks) == before


def test_the_model_can_be_copied_and_saved(net, tmp_path):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.5)
    copy.deepcopy(net)
    torch.save(net, tmp_path / "net.pt")
    assert not list(criterion.parameters())
