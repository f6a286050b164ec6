"""Networks that torch.compile compiled; the oracle is the same network, not compiled, in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import guard_plugin
from guard_plugin.versions import strict_zip

X, Y = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 1, 2, 3])

pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning", "ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"
)


def conv_net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 4)).double()


class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = conv_net()

    def forward(self, x):
        hidden = self.net[:3](x)
        torch._dynamo.graph_break()
        return self.net[3:](hidden)


class HoldsCompiled(nn.Module):
    def __init__(self, backend):
        super().__init__()
        self.net = conv_net()
        self.front = torch.compile(self.net[:3], backend=backend)
        self.end = torch.compile(lambda hidden: self.net[3:](hidden), backend=backend)

    def forward(self, x):
        return self.end(self.front(x))


def compiled_whole(backend):
    net = conv_net()
    return net, torch.compile(net, backend=backend)


def compiled_in_place(backend):
    net = conv_net()
    net.compile(backend=backend)
    return net, net


def with_graph_breaks(backend):
    net = Breaks()
    return net.net, torch.compile(net, backend=backend)


def compiled_parts(backend):
    net = HoldsCompiled(backend)
    return net.net, net


@pytest.fixture(params=["eager", "aot_eager"])
def backend(request):
    torch._dynamo.reset()
    yield request.param
    torch._dynamo.reset()


WAYS = pytest.mark.parametrize("way", [compiled_whole, compiled_in_place, with_graph_breaks, compiled_parts])


@WAYS
@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_the_penalty_of_a_compiled_network_is_that_of_the_network(way, backend, form):
    net, compiled = way(backend)
    plain = conv_net()
    penalty = guard_plugin.curvature_penalty(plain, X, Y, h=0.3, strength=1.5, form=form)
    wanted = functional.cross_entropy(plain(X), Y) + penalty
    wanted.backward()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), compiled, strength=1.5, h=0.3, form=form)
    for _ in range(3):
        net.zero_grad()
        loss = criterion(compiled(X), Y)
        loss.backward()
        torch.testing.assert_close(loss, wanted, rtol=1e-10, atol=0)
        for own, expected in strict_zip(net.parameters(), plain.parameters()):
            torch.testing.assert_close(own.grad, expected.grad, rtol=1e-9, atol=1e-12)
    assert criterion.guarded == 3


@WAYS
def test_strength_zero_is_the_plain_run(way, backend):
    def steps(wrapped: bool) -> list[torch.Tensor]:
        torch._dynamo.reset()
        net, compiled = way(backend)
        criterion = nn.CrossEntropyLoss()
        if wrapped:
            criterion = guard_plugin.wrap(criterion, compiled, strength=0, h=0.3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            criterion(compiled(X), Y).backward()
            optimizer.step()
        assert not wrapped or criterion.guarded == 3
        return [parameter.detach().clone() for parameter in net.parameters()]

    assert all(map(torch.equal, steps(True), steps(False)))


def test_either_name_of_a_compiled_network_will_do(backend):
    net, compiled = compiled_whole(backend)
    for model in (net, compiled):
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=1.5, h=0.3)
        first, second = criterion(net(X), Y), criterion(compiled(X), Y)
        torch.testing.assert_close(first, second, rtol=1e-10, atol=0)
        assert criterion.guarded == 2


def test_a_compiled_criterion_and_its_copy(backend):
    net = conv_net()
    judge = torch.compile(nn.CrossEntropyLoss(label_smoothing=0.1), backend=backend)
    criterion = guard_plugin.wrap(judge, net, strength=1.5, h=0.3)
    plain = guard_plugin.wrap(nn.CrossEntropyLoss(label_smoothing=0.1), copy.deepcopy(net), strength=1.5, h=0.3)
    torch.testing.assert_close(criterion(net(X), Y), plain(plain._made_with[0](X), Y), rtol=1e-10, atol=0)
