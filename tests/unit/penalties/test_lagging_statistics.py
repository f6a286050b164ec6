"""Which networks' evaluation, in which penalties' passes are made, lags behind their training."""

import pytest
import torch
import torchvision
from torch import nn

import guard_plugin
from guard_plugin.penalties import Curvature
from guard_plugin.penalties.lagging_statistics import why_lagging

LOSS_FORM = Curvature(strength=1.0, h=0.1, form="loss")
X, Y = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0, 2])


def network(momentum) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3, momentum=momentum), nn.Flatten(), nn.Linear(48, 3)
    )


@pytest.mark.parametrize("momentum", [0.01, 0.0, None])  # None: the mean over all batches so far
def test_statistics_slower_than_torchs_lag(momentum):
    assert f"1 BatchNorm layer(s) of Sequential (1 first) have momentum {momentum}" in why_lagging(
        network(momentum), LOSS_FORM
    )


def test_torchs_own_and_frozen_layers_do_not_lag():
    frozen = network(0.01)
    frozen[1].eval()
    assert not any(why_lagging(one, LOSS_FORM) for one in (network(0.1), network(0.5), frozen))
    assert "1 BatchNorm layer(s) of BatchNorm1d (itself first)" in why_lagging(
        nn.BatchNorm1d(3, momentum=0.01), LOSS_FORM
    )


@pytest.mark.parametrize(("arch", "lags"), [("resnet18", False), ("mobilenet_v2", False), ("mobilenet_v3_small", True)])
def test_torchvisions_models_are_told_apart(arch, lags):
    assert bool(why_lagging(getattr(torchvision.models, arch)(), LOSS_FORM)) == lags


def test_a_wrapped_criterion_warns_once():
    slow = network(0.01)
    guarded = guard_plugin.wrap(nn.CrossEntropyLoss(), slow, strength=1.0, h=0.1)
    with pytest.warns(UserWarning, match="lag behind training") as told:
        for _ in range(3):
            guarded(slow(X), Y)
    assert len(told) == 1


def test_without_a_penalty_there_is_nothing_to_warn_of():
    slow = network(0.01)  # and pytest makes an error of each warning
    guard_plugin.wrap(nn.CrossEntropyLoss(), slow, strength=0.0, h=0.1)(slow(X), Y)
    guard_plugin.wrap(nn.CrossEntropyLoss(), slow, strength=1.0, h=0.1, form="loss", batch_statistics=True)(slow(X), Y)
