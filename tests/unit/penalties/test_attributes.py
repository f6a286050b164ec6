"""What a network holds is after a guarded step what it is after the plain one, wherever it is held."""

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import guard_plugin
from guard_plugin.penalties.attributes import held

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1, 0, 2])
PENALTIES: list[dict[str, Any]] = [
    {"strength": 1.0, "h": 0.3},
    {"strength": 1.0, "h": 0.3, "path": "reference"},
    {"strength": 1.0, "h": 0.3, "memory": "low"},
    {"penalty": "trades", "eps": 0.1},
    {"penalty": "pgd_at", "eps": 0.1},
]
GLOBAL, GLOBAL_NUMPY = torch.Generator(), np.random.default_rng(0)
ELSEWHERE = SimpleNamespace(generator=random.Random(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 3)

    def act(self) -> Any:
        return 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x + self.act()).tanh())


def increment(held: Any) -> None:
    held["n"] += 1


CHANGES: dict[str, tuple[Any, Any]] = {
    "number": (0, lambda net: setattr(net, "own", net.own + 1)),
    "on a layer of torch's": (0, lambda net: setattr(net.first, "own", getattr(net.first, "own", 0) + 1)),
    "list": ([], lambda net: net.own.append(1)),
    "dict": ({"n": 0}, lambda net: increment(net.own)),
    "dict of another key": ({0: 1}, lambda net: net.own.__setitem__(max(net.own) + 1, net.own.pop(max(net.own)))),
    "defaultdict": (defaultdict(int), lambda net: increment(net.own)),
    "Counter": (Counter(), lambda net: increment(net.own)),
    "OrderedDict": (OrderedDict(), lambda net: net.own.__setitem__(len(net.own), 1)),
    "deque": (deque(maxlen=2), lambda net: net.own.append(len(net.own))),
    "set": (set(), lambda net: net.own.add(len(net.own))),
    "nested": ({"a": ([0],)}, lambda net: net.own["a"][0].append(1)),
    "object": (SimpleNamespace(n=0), lambda net: increment(vars(net.own))),
    "array": (np.zeros(2), lambda net: net.own.__iadd__(1)),
    "tensor": (torch.zeros(2), lambda net: net.own.add_(1)),
    "buffers": (0, lambda net: net.register_buffer(f"b{len(net._buffers)}", torch.zeros(1))),
}


class Changing(Net):
    def __init__(self, kind: str) -> None:
        super().__init__()
        initial, self.change = CHANGES[kind]
        self.own = copy.deepcopy(initial)

    def act(self) -> Any:
        self.change(self)
        return 0.0

    def state(self) -> str:
        return str((self.own, getattr(self.first, "own", 0), list(self._buffers)))


@pytest.mark.parametrize("options", PENALTIES, ids=str)
@pytest.mark.parametrize("kind", CHANGES)
def test_what_a_network_sets_on_itself_is_what_the_plain_run_leaves(kind, options):
    net, plain = Changing(kind), Changing(kind)
    criterion, same = guard_plugin.wrap(nn.CrossEntropyLoss(), net, **options), net.own
    for _ in range(4):
        criterion(net(X), Y).backward()
        plain(X)
        assert net.state() == plain.state()
    assert kind == "number" or net.own is same


def test_a_tensor_that_the_passes_change_keeps_its_value_in_their_graph():
    """Oracle: the plain derivative of the closed form."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.scale = nn.Parameter(torch.tensor(0.5)), torch.ones(())

        def forward(self, x: Tensor) -> Tensor:
            self.scale += 1
            return self.weight * self.scale * x.square().sum(1, keepdim=True) / 2

    net = Scaled()
    options = {"strength": 1.0, "h": 0.1, "loss_fn": lambda outputs, targets: outputs[:, 0], "path": "reference"}
    criterion = guard_plugin.wrap(lambda outputs, targets: outputs.mean(), net, **options)
    criterion(net(X), Y).backward()  # the host's pass scales by 2, so the penalty's passes scale by 3
    assert net.scale == 2
    expected = 2 * X.square().sum(1).mean() / 2 + 2 * 0.5 * (3 * 0.1) ** 2
    torch.testing.assert_close(net.weight.grad, expected)


GENERATORS: dict[str, tuple[Any, Any]] = {
    "in a list": (lambda: [torch.Generator()], lambda net: torch.rand(1, generator=net.own[0])),
    "in an object": (lambda: SimpleNamespace(g=torch.Generator()), lambda net: torch.rand(1, generator=net.own.g)),
    "of Python": (lambda: random.Random(0), lambda net: net.own.random()),
    "of numpy": (lambda: {"g": np.random.RandomState(0)}, lambda net: net.own["g"].rand()),
}


def in_closure() -> Any:
    generator = torch.Generator()
    return lambda: torch.rand(1, generator=generator)


class Drawing(Net):
    def __init__(self, kind: str) -> None:
        super().__init__()
        make, self.draw = GENERATORS[kind]
        self.own = make()

    def act(self) -> Any:
        return self.draw(self)


class DrawsInAClosure(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = in_closure()


class DrawsGlobally(Net):
    def act(self) -> Any:
        return torch.rand(1, generator=GLOBAL)


class DrawsFromNumpy(Net):
    def act(self) -> Any:
        return GLOBAL_NUMPY.normal()


class DrawsElsewhere(Net):
    def act(self) -> Any:
        return ELSEWHERE.generator.random()


DRAWING: list[Any] = [*(lambda kind=kind: Drawing(kind) for kind in GENERATORS), DrawsInAClosure, DrawsGlobally]


@pytest.mark.parametrize("options", PENALTIES, ids=str)
@pytest.mark.parametrize("make", [*DRAWING, DrawsFromNumpy, DrawsElsewhere])
def test_the_hosts_generators_go_on_as_in_the_plain_run(make, options):
    def losses(guarded: bool) -> list[float]:
        GLOBAL.manual_seed(5)
        ELSEWHERE.generator.seed(5)
        GLOBAL_NUMPY.bit_generator.state = np.random.default_rng(5).bit_generator.state
        net, plain, found = make(), nn.CrossEntropyLoss(), []
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, **options) if guarded else None
        for _ in range(3):
            output = net(X)
            if criterion is not None:
                criterion(output, Y)
                assert "shared" not in criterion.paths.to_json()
            found.append(plain(output, Y).item())
        return found

    assert losses(True) == losses(False)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*weight_norm:UserWarning")
def test_the_weight_that_weight_norm_computes_is_torchs():
    layer = nn.utils.weight_norm(nn.Linear(2, 2))
    layer(torch.ones(1, 2))
    assert layer.weight.grad_fn is not None and list(held([layer])) == []
