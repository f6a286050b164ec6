"""A network's own autocast has no part in the penalty's passes, and all of it in the host's."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from guard_plugin.penalties import Curvature, FastTraining, GradientNorm, Penalty, Trades, undisturbed
from guard_plugin.penalties.per_example import cross_entropy
from guard_plugin.penalties.undisturbed import without_autocast
from guard_plugin.versions import is_autocast_enabled

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Block(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layers(x)


class Decorator(Net):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Subclass(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.cpu.amp.autocast(dtype=torch.bfloat16):
            return self.layers(x)


BY_KIND = pytest.mark.parametrize("kind", [Block, Decorator, Subclass])
PENALTIES = [
    Curvature(h=0.05, strength=1.0),
    Curvature(h=0.05, strength=1.0, form="loss"),
    GradientNorm(strength=1.0),
    FastTraining(eps=0.01, strength=1.0),
    Trades(eps=0.01, strength=1.0),
]
BY_PENALTY = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda one: one.name + getattr(one, "form", ""))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 20, generator=generator), torch.randint(4, (8,), generator=generator)


@BY_KIND
@BY_PENALTY
@pytest.mark.filterwarnings("ignore:.*autocast.*is deprecated:FutureWarning")
def test_autocast_that_a_forward_enters_has_no_part_in_the_penalty(kind: Callable[[], nn.Module], penalty: Penalty):
    x, y = batch()
    expected = penalty(Net(), x, y, loss_fn=cross_entropy)
    assert torch.equal(penalty(kind(), x, y, loss_fn=cross_entropy), expected)


@BY_KIND
@pytest.mark.filterwarnings("ignore:.*autocast.*is deprecated:FutureWarning")
def test_afterwards_a_forwards_autocast_is_the_hosts_again(kind: Callable[[], nn.Module]):
    net, (x, _), enter = kind(), batch(), torch.autocast.__enter__
    before = net(x)
    with pytest.raises(ZeroDivisionError), undisturbed(net, CPU), undisturbed(net, CPU):
        assert net(x).dtype == torch.float32
        raise ZeroDivisionError
    assert torch.autocast.__enter__ is enter
    assert torch.equal(net(x), before) and before.dtype == torch.bfloat16
    assert not is_autocast_enabled("cpu")


def test_threads_of_the_penaltys_own_have_no_autocast_and_those_of_the_host_keep_theirs():
    net, (x, _) = Decorator(), batch()
    begun, seen = threading.Event(), []

    def host() -> None:
        begun.wait(10)
        seen.append(net(x).dtype)

    thread = threading.Thread(target=host)
    thread.start()
    with without_autocast(CPU):
        begun.set()
        thread.join(10)
        own = threading.Thread(target=lambda: seen.append(net(x).dtype))
        own.start()
        own.join(10)
    assert seen == [torch.bfloat16, torch.float32]
