"""The loss form in batch statistics, against batch normalisation written by hand, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import UnusableInput
from guard_plugin.injection.wrap import GuardedCriterion
from guard_plugin.penalties import Curvature
from guard_plugin.penalties.per_example import cross_entropy
from guard_plugin.versions import WHY_REFERENCE_ONLY

X = torch.rand(5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1])
IN_BATCH_STATISTICS = {"h": 0.7, "strength": 2.0, "form": "loss", "batch_statistics": True}


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)).double()


def loss_by_hand(network: nn.Sequential, inputs: Tensor) -> Tensor:
    seen = network[0](inputs)
    mean, variance = seen.mean((0, 2, 3), keepdim=True), seen.var((0, 2, 3), keepdim=True, unbiased=False)
    scale, shift = (parameter.reshape(-1, 1, 1) for parameter in network[1].parameters())
    return functional.cross_entropy(network[2:]((seen - mean) / (variance + 1e-5).sqrt() * scale + shift), Y)


def penalty_by_hand(network: nn.Sequential) -> Tensor:
    here = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_by_hand(network, here), here)
    z = gradient / gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    return 2 * (loss_by_hand(network, X + 0.7 * z) - loss_by_hand(network, X)).abs()


def gradients(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


def assert_alike(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert all(torch.allclose(one, other, rtol=1e-7, atol=1e-12) for one, other in zip(ours, theirs))


def test_the_penalty_is_that_of_whole_batches_and_leaves_no_trace(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    value, expected = Curvature(**IN_BATCH_STATISTICS)(network, X, Y, loss_fn=cross_entropy), penalty_by_hand(network)
    assert value.item() > 0 and torch.allclose(value, expected, rtol=1e-9)
    assert_alike(gradients(value, network), gradients(expected, network))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()) and network[1].training


def calls(criterion: GuardedCriterion) -> dict[str, int]:
    return {way: how["calls"] for way, how in criterion.paths.to_json().items()}


@pytest.mark.parametrize("path", ["auto", "shared", "separate", "reference"])
def test_a_wrapped_criterion_computes_it_on_every_path(network, path):
    if path == "shared" and WHY_REFERENCE_ONLY:
        pytest.skip(WHY_REFERENCE_ONLY)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), network, path=path, **IN_BATCH_STATISTICS)
    for _ in range(3):
        loss = criterion(network(X), Y)
        expected = loss_by_hand(network, X) + penalty_by_hand(network)
        assert torch.allclose(loss, expected, rtol=1e-9)
        network.zero_grad()
        loss.backward()
        assert_alike([parameter.grad for parameter in network.parameters()], gradients(expected, network))
    assert network[1].num_batches_tracked == 3  # by the host's own passes
    first = {"auto": "separate"}.get(path, path)  # the network is examined at its first call
    then = {"auto": "shared"}.get(path, path)
    by_way = {"reference": 3} if WHY_REFERENCE_ONLY else {first: 1, then: 2} if first != then else {path: 3}
    assert calls(criterion) == by_way


@pytest.mark.skipif(WHY_REFERENCE_ONLY != "", reason=WHY_REFERENCE_ONLY)
def test_the_hosts_pass_serves_only_where_the_batch_statistics_are_all_that_training_changes(network):
    dropping = nn.Sequential(nn.Dropout(0.5), *network)
    for net, settings, reason in (
        (dropping, IN_BATCH_STATISTICS, "Dropout may act otherwise in training"),
        (network, {**IN_BATCH_STATISTICS, "batch_statistics": False}, "BatchNorm2d may act otherwise in training"),
    ):
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, **settings)
        for _ in range(2):
            criterion(net(X), Y)
        assert calls(criterion) == {"separate": 2} and reason in criterion.paths.to_json()["separate"]["because"]


@pytest.mark.skipif(WHY_REFERENCE_ONLY != "", reason=WHY_REFERENCE_ONLY)
def test_a_network_is_examined_anew_for_a_penalty_in_other_statistics(network):
    settings = {**IN_BATCH_STATISTICS, "batch_statistics": False}
    both = (IN_BATCH_STATISTICS, settings)
    in_batch, running = (guard_plugin.wrap(nn.CrossEntropyLoss(), network, **one) for one in both)
    for criterion in (in_batch, in_batch, running, running, in_batch):
        criterion(network(X), Y)
    assert (calls(in_batch), calls(running)) == ({"shared": 1, "separate": 2}, {"separate": 2})


def test_a_layer_that_is_frozen_stays_so(network):
    network[1].eval()
    settings = {**IN_BATCH_STATISTICS, "batch_statistics": False}
    in_batch, running = (
        Curvature(**one)(network, X, Y, loss_fn=cross_entropy) for one in (IN_BATCH_STATISTICS, settings)
    )
    assert torch.equal(in_batch, running) and running > 0


def test_what_it_cannot_be_had_with_is_refused(network):
    with pytest.raises(UnusableInput, match="expected form 'loss' with batch_statistics, got 'gradient'"):
        Curvature(strength=1.0, h=0.1, batch_statistics=True)
    with pytest.raises(UnusableInput, match="expected memory 'normal' with batch_statistics"):
        guard_plugin.wrap(nn.CrossEntropyLoss(), network, memory="low", **IN_BATCH_STATISTICS)
