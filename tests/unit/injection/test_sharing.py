"""When the host's own forward pass serves as one of the penalty's: never where the host could tell the difference."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.checkpoint import checkpoint

import guard_plugin
from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.fast.shared_forward import SharedForward

Y = torch.tensor([0, 2, 1, 1, 2])


class Outside:
    """Where a network may leave tensors beside its attributes."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []


class Net(nn.Module):
    """A convolutional network whose activations its subclasses pass through ``between``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Linear(144, 3)
        self.kept: list[Tensor] = []
        self.outside = Outside()

    def all_kept(self) -> list[Tensor]:
        return [*self.kept, *self.outside.kept]

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(functional.softplus(self.norm(self.first(x)))).flatten(1))


class KeepsInAnObject(Net):
    def between(self, x: Tensor) -> Tensor:
        self.outside.kept.append(x)
        return x


class KeepsOnALayer(Net):
    def between(self, x: Tensor) -> Tensor:
        self.first.kept = x
        return x

    def all_kept(self) -> list[Tensor]:
        return [self.first.kept]


class Late(Net):
    late = False

    def between(self, x: Tensor) -> Tensor:
        return 2 * x if self.late and self.training else x


class Hidden(Net):
    """It reads the flag by a name that its code does not have."""

    def between(self, x: Tensor) -> Tensor:
        return x + 1e-3 * getattr(self, "".join(["train", "ing"]))


class Keeps(Net):
    def between(self, x: Tensor) -> Tensor:
        self.kept = [x]
        return x


class KeepsWhenTold(Net):
    told = False

    def between(self, x: Tensor) -> Tensor:
        if self.told:
            self.kept = [x]
        return x


class KeepsInADict(Net):
    def between(self, x: Tensor) -> Tensor:
        self.features = {"last": (x,)}
        return x

    def all_kept(self) -> list[Tensor]:
        return list(self.features["last"])


class KeepsItsInput(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.kept = [x]
        return super().forward(x)


class Retains(Net):
    def between(self, x: Tensor) -> Tensor:
        if x.grad_fn is not None:
            x.retain_grad()
        self.outside.kept.append(x)
        return x


class Asks(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x if x.requires_grad else x)


class AsksForANode(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.grad_fn is None else 2 * x)


class Checkpoints(Net):
    def between(self, x: Tensor) -> Tensor:
        return checkpoint(nn.Softplus(), x, use_reentrant=True)


class Hyper(Net):
    """Its host computes a scale before it calls it."""

    scale = None

    def between(self, x: Tensor) -> Tensor:
        return x * self.scale()


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 2, 8, 8, generator=generator) for _ in range(count)]


def wrap(net: nn.Module, **options: Any) -> Any:
    return guard_plugin.wrap(nn.CrossEntropyLoss(), net, **{"strength": 1.0, "h": 0.7, **options})


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_a_network_that_acts_otherwise_in_training_from_some_call_on_has_the_penalty_of_evaluation(form):
    def gradients(path: str) -> list[list[Tensor]]:
        net, found = Late().double(), []
        criterion = wrap(net, form=form, path=path)
        for step, x in enumerate(batches(6)):
            net.late = step >= 2
            found.append(torch.autograd.grad(criterion(net(x.double()), Y), list(net.parameters())))
        return found

    torch.testing.assert_close(gradients("auto"), gradients("reference"))


def test_what_the_code_does_not_show_is_seen_in_the_output():
    net = Hidden()
    criterion = wrap(net)
    for x in batches(3):
        criterion(net(x), Y)
    reasons = criterion.paths.to_json()["separate"]["because"]
    assert reasons == {"it was not examined before": 1, "its output in training is not that of evaluation": 2}


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_channels_last_keeps_the_plain_runs_values_bit_for_bit(form, dropout):
    def run(strength: float | None) -> list[Tensor]:
        net, found = Net().to(memory_format=torch.channels_last), []
        net.between = nn.Dropout(0.3) if dropout else nn.Identity()
        criterion = nn.CrossEntropyLoss() if strength is None else wrap(net, strength=strength, form=form)
        torch.manual_seed(7)
        for x in batches(5):
            output = net(x.to(memory_format=torch.channels_last))
            found += [output.detach(), criterion(output, Y).detach()]
        return found

    assert all(map(torch.equal, run(1e-12), run(None)))


@pytest.mark.parametrize("shape", [(2, 4, 3, 2), (1, 4, 3, 2), (2, 4, 3, 2, 2)])
def test_group_norm_keeps_the_memory_format_and_has_both_derivatives(shape):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    norm = nn.GroupNorm(2, 4).double()
    nn.init.normal_(norm.weight)
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=formats[len(shape)]).requires_grad_()
    plain = norm(x.detach())
    shared = SharedForward(x.detach(), norm, twice=True)
    try:
        normalised = norm(shared.input)
        assert normalised.stride() == plain.stride() and torch.equal(normalised, plain)

        def twice(x: Tensor, weight: Tensor) -> Tensor:
            with shared.operations:
                return functional.group_norm(x.contiguous(memory_format=formats[len(shape)]), 2, weight)

        assert torch.autograd.gradgradcheck(twice, (x, norm.weight))
    finally:
        shared.close()


@pytest.mark.parametrize("form", ["gradient", "loss"])
@pytest.mark.parametrize("kind", [Keeps, KeepsInADict, KeepsItsInput, KeepsInAnObject, KeepsOnALayer, Retains])
def test_the_gradient_of_a_tensor_that_the_network_keeps_is_that_of_path_reference(kind, form):
    def gradients(path: str) -> list[Tensor]:
        net, found = kind().double(), []
        criterion = wrap(net, form=form, path=path)
        for x in batches(4):
            output = net(x.double())
            kept = [one for one in net.all_kept() if one.requires_grad]
            for one in kept:
                one.retain_grad()
            criterion(output, Y).backward()
            found += [one.grad for one in kept]
            net.outside.kept.clear()
        return found

    torch.testing.assert_close(gradients("auto"), gradients("reference"))


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("pre", [False, True])
def test_what_a_forward_hook_of_the_hosts_sees_is_that_of_the_plain_run(pre, everywhere):
    net, seen = Net().requires_grad_(False), []
    net.last.requires_grad_()

    def see(module: nn.Module, args: tuple[Tensor, ...], *output: Tensor) -> None:
        if module is net.first and module.training:
            seen.append(args[0].numpy().copy())

    if everywhere:
        register = register_module_forward_pre_hook if pre else register_module_forward_hook
    else:
        register = net.first.register_forward_pre_hook if pre else net.first.register_forward_hook
    handle = register(see)
    criterion = wrap(net)
    for x in batches(4):
        criterion(net(x), Y).backward()
    handle.remove()
    assert [one.tobytes() for one in seen] == [x.numpy().tobytes() for x in batches(4)]


def test_a_hook_that_is_added_later_is_seen():
    net, seen = Net(), []
    criterion = wrap(net)
    for step, x in enumerate(batches(4)):
        if step == 2:
            net.norm.register_forward_hook(
                lambda module, args, output: seen.append(output) if module.training else None
            )
        loss = criterion(net(x), Y)
        for one in seen:
            one.retain_grad()
        loss.backward()
        assert all(one.grad is not None for one in seen)
        seen.clear()
    assert criterion.paths.to_json()["shared"]["calls"] == 1


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_a_network_that_begins_to_keep_its_activations_is_not_shared_then(form):
    def gradients(path: str) -> list[Tensor]:
        net, found = KeepsWhenTold().double(), []
        criterion = wrap(net, form=form, path=path)
        for step, x in enumerate(batches(7)):
            net.told = step >= 4
            output = net(x.double())
            activations = list(net.kept)
            for one in activations:
                one.retain_grad()
            criterion(output, Y).backward()
            found += [one.grad for one in activations]
        assert len(found) == 3
        return found

    torch.testing.assert_close(gradients("auto"), gradients("reference"))


def test_a_hook_that_couples_the_examples_is_seen_at_once():
    net = Net()
    criterion = wrap(net, memory="low")
    for x in batches(2):
        criterion(net(x), Y)
    net.norm.register_forward_hook(lambda norm, _, output: output - output.mean(0, keepdim=True))
    with pytest.raises(UnsupportedLoss, match="depend on other examples"):
        criterion(net(x), Y)


def test_what_a_frozen_network_keeps_does_not_require_grad():
    net = Keeps().requires_grad_(False)
    net.last.requires_grad_()
    criterion = wrap(net)
    for x in batches(4):
        output = net(x)
        net.kept[0].numpy()
        criterion(output, Y).backward()


@pytest.mark.parametrize("kind", [Asks, AsksForANode])
@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_a_network_that_could_tell_a_shared_input_is_given_the_hosts_own(kind, form):
    net, plain = kind(), kind()
    criterion = wrap(net, form=form, strength=1e-12)
    for x in batches(5):
        outputs = net(x), plain(x)
        assert torch.equal(*outputs)
        criterion(outputs[0], Y)
    assert "shared" not in criterion.paths.to_json()


class Autocasts(Net):
    """It enters autocast from some call on, and returns full precision."""

    on = True

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.on):
            return super().forward(x).float()


@pytest.mark.parametrize("form", ["gradient", "loss"])
@pytest.mark.parametrize("first", [True, False])
def test_a_pass_that_switches_autocast_on_is_not_shared(first, form):
    net = Autocasts()
    net.on = first
    criterion = wrap(net, form=form)
    batch = batches(1)[0]
    criterion(net(batch), Y)
    net.on = True
    for _ in range(3):
        penalty = criterion(net(batch), Y) - functional.cross_entropy(net(batch), Y)
    assert "shared" not in criterion.paths.to_json()
    expected = guard_plugin.curvature_penalty(Net(), batch, Y, h=0.7, strength=1.0, form=form)
    torch.testing.assert_close(penalty, expected, rtol=1e-3, atol=1e-5)


def reasons(net: nn.Module) -> dict[str, int]:
    criterion = wrap(net)
    for x in batches(4):
        criterion(net(x), Y).backward(retain_graph=True)
    return {why: n for taken in criterion.paths.to_json().values() for why, n in taken["because"].items()}


def test_a_pass_with_a_checkpoint_or_with_weights_computed_before_is_not_shared():
    net = Hyper()
    weight = nn.Parameter(torch.ones(()))
    before = weight.exp()
    assert reasons(Net()) == {"it was not examined before": 1}
    assert "torch.utils.checkpoint computes parts again" in reasons(Checkpoints())
    net.scale = lambda: before
    assert "its weights are computed outside of its forward pass" in reasons(net)
    net = Hyper()
    net.scale = lambda: weight.exp()
    assert reasons(net) == {"it was not examined before": 1}


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_a_pass_that_a_checkpoint_makes_twice_is_not_shared(form):
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Tanh(), nn.Linear(8, 3))  # saves more for other inputs
    plain, criterion = copy.deepcopy(net), wrap(net, form=form)
    for x in batches(3):
        net.zero_grad()
        criterion(checkpoint(net, x, use_reentrant=False), Y).backward()
        expected = functional.cross_entropy(plain(x), Y)
        expected = expected + guard_plugin.curvature_penalty(plain, x, Y, h=0.7, strength=1.0, form=form)
        gradients = torch.autograd.grad(expected, list(plain.parameters()))
        for parameter, gradient in zip(net.parameters(), gradients):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_part_is_not_shared():
    net = Net()
    net.between = torch.compile(functional.softplus, backend="aot_eager")
    assert "CompiledFunctionBackward cannot be differentiated twice" in reasons(net)


@pytest.mark.parametrize("n", [2, 3])
def test_one_value_per_group_does_not_end_the_run(n):
    net = nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(4, 4), nn.Linear(4, 2))
    criterion, plain = wrap(net, h=0.1, strength=1e-12), copy.deepcopy(net)
    x, y = torch.randn(n, 3), torch.zeros(n, dtype=torch.long)
    for _ in range(3):
        assert torch.equal(criterion(net(x), y), functional.cross_entropy(plain(x), y))


def test_a_first_call_is_not_shared_as_the_network_is_not_known():
    net = Net()
    criterion = wrap(net)
    for x in batches(3):
        criterion(net(x), Y)
    assert criterion.paths.to_json() == {
        "separate": {"calls": 1, "because": {"it was not examined before": 1}},
        "shared": {"calls": 2, "because": {}},
    }


class Two(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = super().forward(x)
        return output, output.exp()


def test_a_network_that_returns_several_tensors_is_shared_from_its_second_call_on():
    net = Two()
    criterion = wrap(net)
    for x in batches(3):
        criterion(net(x)[0], Y)
    assert criterion.paths.to_json()["shared"]["calls"] == 2


class Probe(nn.Module):
    """A head on features that are trained, too, until they are frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.last = nn.Conv2d(2, 4, 3), nn.Linear(144, 3)

    def features(self, x: Tensor) -> Tensor:
        return functional.softplus(self.body(x)).flatten(1)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.features(x)), {"features": [self.features(x)]}


class Normalises(Probe):
    def forward(self, x: Tensor) -> Any:
        x = (x - 0.5) / 0.2
        return self.last(self.features(x)), {"features": [x]}


class ReturnsItsInput(Probe):
    def forward(self, x: Tensor) -> Any:
        return self.last(self.features(x)), {"features": [x]}


@pytest.mark.parametrize("form", ["gradient", "loss"])
@pytest.mark.parametrize("kind", [Probe, Normalises, ReturnsItsInput])
def test_what_a_network_returns_beside_its_output_requires_grad_only_where_it_does_in_the_plain_run(kind, form):
    net = kind()
    criterion, plain = wrap(net, form=form), copy.deepcopy(net)
    for number, x in enumerate(batches(6)):
        if number == 3:
            for one in (net, plain):
                one.body.requires_grad_(False)
        output, others = net(x)
        _, expected = plain(x)
        assert others["features"][0].requires_grad == expected["features"][0].requires_grad
        criterion(output, Y).backward()
    assert ("shared" in criterion.paths.to_json()) == (kind is Probe)
