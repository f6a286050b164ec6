"""Which modules may act otherwise in training than in evaluation, told from their code."""

import collections
import functools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from guard_plugin.networks.architectures import build_network
from guard_plugin.penalties.reads_training import why_otherwise_in_training
from tests.versions import needs_torch


def drop(x: Tensor, module: nn.Module) -> Tensor:
    return drop_if(x, module.training)


def drop_if(x: Tensor, training: bool) -> Tensor:
    return functional.dropout(x, 0.5, training)


def only_when_late(module: nn.Module, x: Tensor) -> Tensor:
    return 2 * x if module.calls > 100 and module.training else x


def decorated(function):
    def call(*args):
        return function(*args)

    return call


class Plain(nn.Module):
    """Its docstring may say training."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([one.tanh() for one in x])


class Late(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return 2 * x if self.calls > 100 and self.training else x


class ByName(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if getattr(self, "training") else x  # noqa: B009


class InAComprehension(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([one * (lambda: 1 + self.training)() for one in x])


class InAnotherMethod(Plain):
    @property
    def factor(self) -> float:
        return 1 + self.training

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class InAFunction(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self)


class InATable(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return TABLE["drop"](x, self)


TABLE = {"drop": drop}


class Decorated(Plain):
    @decorated
    def forward(self, x: Tensor) -> Tensor:
        return x + self.training


class WithoutGradients(Plain):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return x + self.training


class Inherits(Late):
    pass


class OwnDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class SetsTheFlag(Plain):
    def train(self, mode: bool = True) -> "SetsTheFlag":
        self.training = mode
        return self


def replaced() -> nn.Module:
    module = Plain()
    module.forward = lambda x: x + module.training  # type: ignore[method-assign]
    return module


def bound() -> nn.Module:
    module = Plain()
    module.step = functools.partial(only_when_late, module)
    return module


def listed() -> nn.Module:
    module = Plain()
    module.steps = [{"first": functools.partial(only_when_late, module)}]
    return module


def in_a_tuple() -> nn.Module:
    module = Plain()
    module.steps = ({functools.partial(only_when_late, module)},)
    return module


def in_a_queue() -> nn.Module:
    class Step:
        def __call__(self, x: Tensor) -> Tensor:
            return x + module.training

    module = Plain()
    module.steps = collections.deque([Step()])
    return module


def called() -> nn.Module:
    class Step:
        def __call__(self, x: Tensor) -> Tensor:
            return x + module.training

    module = Plain()
    module.step = Step()
    return module


class Tools:
    """A collection of functions that is no function."""

    def late(self, module: nn.Module, x: Tensor) -> Tensor:
        return x + module.training

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        return self.late(module, x)


TOOLS, SPACE = Tools(), SimpleNamespace(late=lambda module, x: x + module.training)


class ByAGlobalObject(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return TOOLS(self, x)


class ByAGlobalSpace(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return SPACE.late(self, x)


def equipped() -> nn.Module:
    module = Plain()
    module.space = SPACE
    return module


def unreadable() -> nn.Module:
    module = Plain()
    module.forward = torch.relu  # type: ignore[method-assign]
    return module


def hooked() -> nn.Module:
    module = Plain()
    module.register_forward_hook(lambda module, args, output: output + module.training)
    return module


def scripted() -> nn.Module:
    return torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))


def conv_net(norm: str) -> nn.Module:
    return build_network(f"ConvNet-d1-w4-{norm}", channels=2, num_classes=3, im_size=(8, 8))


OTHERWISE = [
    *(Late, ByName, InAComprehension, InAnotherMethod, InAFunction, InATable, Decorated, WithoutGradients, Inherits),
    *(
        replaced,
        bound,
        listed,
        in_a_tuple,
        in_a_queue,
        called,
        ByAGlobalObject,
        ByAGlobalSpace,
        equipped,
        unreadable,
        hooked,
        scripted,
        nn.RReLU,
        OwnDropout,
        nn.Dropout2d,
        lambda: nn.Dropout(0.1),
    ),
    lambda: nn.BatchNorm1d(2, track_running_stats=True),
    lambda: nn.InstanceNorm1d(2, track_running_stats=True),
    lambda: nn.LSTM(2, 2, 2, dropout=0.5),
    lambda: nn.MultiheadAttention(2, 1, dropout=0.1),
    lambda: nn.TransformerEncoderLayer(4, 2, 8),
    lambda: parametrizations.spectral_norm(nn.Linear(2, 2)),
    lambda: nn.utils.spectral_norm(nn.Linear(2, 2)),
    lambda: conv_net("batch"),
]
SAME = [
    *(Plain, SetsTheFlag, lambda: nn.Dropout(0), lambda: OwnDropout(0), lambda: nn.InstanceNorm1d(2)),
    lambda: nn.LSTM(2, 2, 2),
    lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, dropout=0, batch_first=True), 2),
    lambda: getattr(parametrizations, "weight_norm", nn.utils.weight_norm)(nn.Linear(2, 2)),  # torch 2.0
    lambda: conv_net("group"),
    pytest.param(
        lambda: build_network("resnet18", channels=3, num_classes=3, im_size=(32, 32)).apply(evaluate_batch_norm),
        marks=needs_torch(2, 0),
    ),
]


def evaluate_batch_norm(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm2d):
        module.eval()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
@pytest.mark.parametrize("make", OTHERWISE)
def test_what_reads_training_is_found_before_it_acts(make):
    network = nn.Sequential(nn.Identity(), make())
    assert "may act otherwise in training" in why_otherwise_in_training(network)
    assert why_otherwise_in_training(network.eval()) == "" or isinstance(network[1], torch.jit.ScriptModule)


@pytest.mark.parametrize("make", SAME)
def test_what_does_not_read_it_is_the_same_in_both(make):
    assert why_otherwise_in_training(nn.Sequential(make())) == ""


def test_a_method_that_is_replaced_is_read_again():
    class Network(Plain):
        pass

    assert why_otherwise_in_training(Network()) == ""
    Network.forward = Late.forward  # type: ignore[method-assign]
    assert why_otherwise_in_training(Network()) != ""


def test_a_probability_that_changes_is_seen():
    layer = nn.Dropout(0)
    assert why_otherwise_in_training(layer) == ""
    layer.p = 0.5
    assert why_otherwise_in_training(layer) != ""
