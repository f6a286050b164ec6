"""On a CUDA device: every way of computing the penalty, mixed precision, DDP, random streams, and attacks."""

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import guard_plugin
from guard_plugin.networks.architectures import build_network
from guard_plugin.versions import strict_zip

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

FORMS = ["gradient", "loss"]
WAYS: dict[str, dict[str, Any]] = {"auto": {}, "separate": {"path": "separate"}, "low": {"memory": "low"}}
DEVICE = torch.device("cuda")


def conv_net(kind: str) -> nn.Module:
    return build_network(f"ConvNet-d2-w8-{kind}", channels=3, num_classes=5, im_size=(16, 16))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 196, 5))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "group": lambda: conv_net("group"),
    "instance": lambda: conv_net("instance"),
    "batch": lambda: conv_net("batch"),
    "dropout": dropout,
}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No TF32: its ten bits would hide what differs."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    places: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield
    for place, allowed in strict_zip(places, before):
        place.allow_tf32 = allowed


def batch(n: int = 6, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 16, 16, generator=generator, dtype=dtype), torch.arange(n) % 5


def step(net: nn.Module, x: Tensor, y: Tensor, **options: Any) -> tuple[list[Tensor], Tensor]:
    """One guarded step: the parameters' gradients and the loss."""
    torch.manual_seed(3)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.7, **options)
    loss = criterion(net(x), y)
    net.zero_grad()
    loss.backward()
    assert criterion.guarded == 1
    return [parameter.grad.clone() for parameter in net.parameters()], loss.detach()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_way_gives_the_reference_gradients(exact, name, way, form):
    net = NETWORKS[name]().double().to(DEVICE).train()
    x, y = (tensor.to(DEVICE) for tensor in batch())
    wanted, loss = step(copy.deepcopy(net), x, y, form=form, path="reference")
    found, same = step(net, x, y, form=form, **WAYS[way])
    torch.testing.assert_close(same, loss, rtol=1e-10, atol=1e-12)
    for a, b in strict_zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_the_penalty_is_that_of_the_cpu(exact, form):
    net = conv_net("group").double()
    x, y = batch()
    here = guard_plugin.curvature_penalty(net, x, y, h=0.7, strength=2.0, form=form)
    net, x, y = net.to(DEVICE), x.to(DEVICE), y.to(DEVICE)
    there = guard_plugin.curvature_penalty(net, x, y, h=0.7, strength=2.0, form=form)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_mixed_precision_the_penalty_is_computed_in_full(exact, dtype, form):
    net = conv_net("group").to(DEVICE).train()
    x, y = (tensor.to(DEVICE) for tensor in batch(dtype=torch.float32))
    wanted = guard_plugin.curvature_penalty(net, x, y, h=0.7, strength=2.0, form=form)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.7, form=form)
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=1e-3), torch.amp.GradScaler("cuda", init_scale=128.0)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with torch.autocast("cuda", dtype=dtype):
        output = net(x)
        plain = nn.functional.cross_entropy(output, y).detach()
        loss = criterion(output, y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert criterion.guarded == 1 and scaler.get_scale() == 128.0, "the step was skipped for gradients not finite"
    torch.testing.assert_close(loss.detach() - plain, wanted.detach(), rtol=2e-3, atol=1e-4)
    assert all(not torch.equal(a, b) for a, b in strict_zip(before, net.parameters()))


@pytest.mark.parametrize("way", WAYS)
def test_the_hosts_random_streams_are_the_plain_runs(way):
    net = dropout().to(DEVICE).train()
    x, y = (tensor.to(DEVICE) for tensor in batch(dtype=torch.float32))
    torch.manual_seed(3)
    nn.CrossEntropyLoss()(net(x), y).backward()
    plain = torch.cuda.get_rng_state(DEVICE)
    step(net, x, y, **WAYS[way])
    assert torch.equal(torch.cuda.get_rng_state(DEVICE), plain)


@pytest.fixture
def process_group() -> Iterator[None]:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", RANK="0", WORLD_SIZE="1")
    torch.distributed.init_process_group("nccl")
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_ddp_gives_the_gradients_of_the_plain_network(exact, process_group, way, form):
    net = conv_net("batch").double().to(DEVICE).train()
    x, y = (tensor.to(DEVICE) for tensor in batch())
    wanted, _ = step(copy.deepcopy(net), x, y, form=form, path="reference")
    found, _ = step(DistributedDataParallel(net, device_ids=[0]), x, y, form=form, **WAYS[way])
    for a, b in strict_zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def peak(net: nn.Module, x: Tensor, y: Tensor, **options: Any) -> int:
    step(net, x, y, **options)  # examines the network, and fills the allocator
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    step(net, x, y, **options)
    return torch.cuda.max_memory_allocated() - held


@pytest.mark.parametrize("form", FORMS)
def test_memory_low_holds_less_than_the_reference(form):
    net = build_network("ConvNet-d3-w64-group", channels=3, num_classes=5, im_size=(32, 32)).to(DEVICE).train()
    x, y = torch.randn(128, 3, 32, 32, device=DEVICE), torch.arange(128, device=DEVICE) % 5
    low, reference = (peak(net, x, y, form=form, **way) for way in ({"memory": "low"}, {"path": "reference"}))
    assert low < 0.6 * reference


def test_memory_low_takes_a_network_whose_convolutions_are_rounded_to_tf32():
    net = build_network("resnet18", channels=3, num_classes=5, im_size=(32, 32)).to(DEVICE).train()
    x, y = torch.randn(32, 3, 32, 32, device=DEVICE), torch.arange(32, device=DEVICE) % 5
    assert torch.backends.cudnn.allow_tf32  # torch's default
    step(net, x, y, memory="low")


def test_attacks_find_on_the_device_what_they_find_on_the_cpu(exact):
    net = build_network("ConvNet-d2-w8-instance", channels=3, num_classes=5, im_size=(16, 16)).eval()
    pixels = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    labels = net(pixels).argmax(1)
    asked = {"dataset": (pixels, labels), "attacks": "fgsm,pgd10,mim10,square50,cw", "eps": "2/255"}
    here = guard_plugin.benchmark(net, **asked)
    there = guard_plugin.benchmark(net, **asked, device="cuda")
    assert there.clean_accuracy == here.clean_accuracy == 1.0
    for attack, accuracy in here.robust_accuracy.items():
        assert there.robust_accuracy[attack] == pytest.approx(accuracy, abs=1.5 / len(labels)), attack
