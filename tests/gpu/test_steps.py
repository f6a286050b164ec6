"""On a CUDA device, over several steps: what a backward pass in autograd's own threads must not confuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import guard_plugin
from guard_plugin.versions import strict_zip
from tests.gpu.test_cuda import DEVICE, batch, conv_net, exact

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

__all__ = ["exact"]  # the fixture


class Hyper(nn.Module):
    """Its scale is computed once, outside of its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.log_scale = conv_net("group"), nn.Parameter(torch.zeros(()))
        self.scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        scale = self.log_scale.exp() if self.scale is None else self.scale
        return self.net(x * scale)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front, self.end = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh()), nn.Linear(8 * 196, 5)
        self.checkpointed = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.checkpointed:
            return self.end(self.front(x).flatten(1))
        return self.end(checkpoint(self.front, x, use_reentrant=False).flatten(1))


def on_device(net: nn.Module) -> nn.Module:
    return net.double().to(DEVICE).train()


def steps(net: nn.Module, call: Callable[[Tensor], Tensor], **options: Any) -> tuple[list[list[Tensor]], Any]:
    """Four guarded steps of one criterion: the gradients of each, and the ways that were taken."""
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.7, **options)
    gradients = []
    for _ in range(4):
        x, y = (tensor.to(DEVICE) for tensor in batch())
        net.zero_grad()
        output = call(x)
        (0.1 * output.square().mean()).backward(retain_graph=True)  # a loss beside, before the guarded one
        criterion(output, y).backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    call(batch()[0].to(DEVICE))  # warnings are errors: none says that the network is trained by another loss
    assert criterion.guarded == 4
    return gradients, criterion.paths.to_json()


def assert_alike(found: list[list[Tensor]], wanted: list[list[Tensor]]) -> None:
    for here, there in strict_zip(found, wanted):
        for a, b in strict_zip(here, there):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_the_hosts_pass_is_shared_and_gives_the_reference_gradients(exact, form):
    net = on_device(conv_net("group"))
    plain = copy.deepcopy(net)
    found, taken = steps(net, net, form=form)
    assert taken["shared"]["calls"] == 3
    assert_alike(found, steps(plain, plain, form=form, path="reference")[0])


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_weights_that_were_computed_before_are_seen(exact, form):
    net = on_device(Hyper())
    plain = copy.deepcopy(net)

    def called(model: Any) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            model.scale = model.log_scale.exp()
            return model(x)

        return call

    found, taken = steps(net, called(net), form=form)
    assert list(taken) == ["reference"] and "its weights are computed outside" in str(taken)
    assert_alike(found, steps(plain, called(plain), form=form, path="reference")[0])


def test_checkpointed_networks_have_the_gradients_without(exact):
    net = on_device(Checkpointed())
    plain = copy.deepcopy(net)
    plain.checkpointed = False
    assert_alike(steps(net, net)[0], steps(plain, plain, path="reference")[0])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_network_is_guarded(exact, backend):
    net = on_device(conv_net("group"))
    plain = copy.deepcopy(net)
    x, y = (tensor.to(DEVICE) for tensor in batch())
    fast = torch.compile(net, backend=backend)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), fast, strength=2.0, h=0.7)
    criterion(fast(x), y).backward()
    penalty = guard_plugin.curvature_penalty(plain, x, y, strength=2.0, h=0.7)
    (functional.cross_entropy(plain(x), y) + penalty).backward()
    assert_alike([[p.grad for p in net.parameters()]], [[p.grad for p in plain.parameters()]])


def test_data_parallel_on_one_device(exact):
    net = on_device(conv_net("group"))
    plain = copy.deepcopy(net)
    wanted, _ = steps(plain, plain, path="reference")
    spread = nn.DataParallel(net, device_ids=[0])
    assert_alike(steps(spread, spread)[0], wanted)
