"""Every way of computing the curvature penalty against the reference way, in float64, through ``guard_plugin.wrap``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _len_torch_function_stack
from torch.utils.checkpoint import checkpoint

import guard_plugin
from guard_plugin import hookimpl
from guard_plugin.errors import UnsupportedLoss, UnusableInput
from guard_plugin.injection.paths import Paths
from guard_plugin.injection.wrap import GuardedCriterion
from guard_plugin.networks.architectures import build_network
from guard_plugin.penalties import Curvature, GradientNorm
from guard_plugin.penalties.network_properties import properties_of
from guard_plugin.penalties.undisturbed import undisturbed
from guard_plugin.plugins import Registered, installed_plugins
from guard_plugin.versions import strict_zip
from tests.versions import needs_torch

FORMS = ["gradient", "loss"]
WAYS: dict[str, dict[str, Any]] = {
    "separate": {"path": "separate"},
    "auto": {},
    "low": {"memory": "low"},
}
X, Y = torch.empty(0), torch.empty(0)


@pytest.fixture(autouse=True)
def float64():
    global X, Y
    torch.set_default_dtype(torch.float64)
    X, Y = torch.randn(5, 2, 8, 8), torch.tensor([0, 2, 1, 1, 2])
    yield
    torch.set_default_dtype(torch.float32)


class Labels(nn.Module):
    """A network, and the labels that its host learns with it."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.labels = conv_net(), nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.last = nn.Conv2d(2, 4, 4, stride=4), nn.Linear(4, 3)
        self.block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.patches(x).flatten(2).transpose(1, 2)).mean(dim=1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(self.first(x).tanh()).tanh().flatten(1))


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.Softplus(), nn.Flatten())
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.last, self.first(x).tanh(), use_reentrant=False))


def conv_net() -> nn.Module:
    return build_network("ConvNet-d1-w4-group", channels=2, num_classes=3, im_size=(8, 8))


def batch_norm() -> nn.Module:
    return build_network("ConvNet-d1-w4-batch", channels=2, num_classes=3, im_size=(8, 8))


def frozen_batch_norm() -> nn.Module:
    net = batch_norm()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return net


def dropout() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))


def frozen_start() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Softplus(), nn.Flatten(), nn.Linear(144, 3))
    return net.requires_grad_(False).append(nn.Linear(3, 3))


def in_place() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv_net": conv_net,
    "batch_norm": batch_norm,
    "frozen_batch_norm": frozen_batch_norm,
    "dropout": dropout,
    "attention": Attention,
    "tied": Tied,
    "frozen_start": frozen_start,
    "in_place": in_place,
}
if hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"):  # torch >= 2.8
    NETWORKS["checkpointed"] = Checkpointed


@dataclass(frozen=True)
class Loss:
    """A criterion, and what it is called with."""

    criterion: Callable[[], Any] = nn.CrossEntropyLoss
    targets: Callable[[nn.Module], Tensor] = lambda net: Y
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None
    after: tuple[Callable[[], nn.Module], ...] = ()


def squared(output: Tensor, targets: Tensor) -> Tensor:
    return (output.softmax(1) - functional.one_hot(targets, 3)).square().sum(dim=1) + output.square().mean(dim=1)


def mean_squared(output: Tensor, targets: Tensor) -> Tensor:
    return 3 + 0.5 * squared(output, targets).mean()


LOSSES = {
    "plain": Loss(),
    "soft": Loss(targets=lambda net: functional.one_hot(Y, 3) * 0.7 + 0.1),
    "smoothed": Loss(lambda: nn.CrossEntropyLoss(label_smoothing=0.2)),
    "weighted": Loss(lambda: nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]))),
    "weighted_smoothed": Loss(lambda: nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.2)),
    "ignoring": Loss(lambda: nn.CrossEntropyLoss(ignore_index=-7), lambda net: Y.masked_fill(Y == 1, -7)),
    "summed": Loss(lambda: nn.CrossEntropyLoss(reduction="sum")),
    "nll": Loss(nn.NLLLoss, after=(lambda: nn.LogSoftmax(dim=1),)),
    "own": Loss(lambda: mean_squared, loss_fn=squared),
}


@dataclass
class Step:
    """What one guarded loss call gave."""

    net: nn.Module
    criterion: GuardedCriterion
    loss: Tensor
    output: Tensor
    leaves: list[Tensor] = field(default_factory=list)

    def gradients(self, **options: Any) -> list[Tensor]:
        return list(torch.autograd.grad(self.loss, self.leaves, materialize_grads=True, allow_unused=True, **options))

    @property
    def taken(self) -> dict[str, Any]:
        return self.criterion.paths.to_json()


def examine(net: nn.Module, n: int = 5) -> None:
    """Let a network be known, as after its first loss call: from then on its passes may be shared."""
    with undisturbed(net, X.device), torch.no_grad():
        output = net(X[:n])
    properties_of(net, X[:n], output)


def guarded(net: nn.Module, loss: Loss | None = None, *, n: int = 5, copied: bool = True, **options: Any) -> Step:
    loss, net = loss or Loss(), copy.deepcopy(net) if copied else net
    model = nn.Sequential(net, *(make() for make in loss.after)) if loss.after else net
    settings = {"strength": 2.0, "h": 0.7, **options}
    criterion = guard_plugin.wrap(loss.criterion(), model, loss_fn=loss.loss_fn, **settings)
    if settings["strength"]:
        examine(model, n)
    torch.manual_seed(3)
    output = model(X[:n])
    targets = net.labels.softmax(1) if isinstance(net, Labels) and loss.targets(net) is Y else loss.targets(net)
    value = criterion(output, targets if len(targets) == n else targets[:n])
    return Step(net, criterion, value, output, [p for p in net.parameters() if p.requires_grad])


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    flat = [torch.cat([t.flatten() for t in tensors]) for tensors in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def check_same(step: Step, reference: Step) -> None:
    assert abs(step.loss - reference.loss) <= 1e-10 * abs(reference.loss)
    assert distance(step.gradients(), reference.gradients(retain_graph=True)) < 1e-10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 5])
def test_every_way_gives_the_reference_gradients_on_every_network(name, form, n):
    torch.manual_seed(0)
    net = NETWORKS[name]()
    if "norm" in name:
        net(torch.randn(6, 2, 8, 8))  # running statistics that are not the initial ones
    reference = guarded(net, n=n, form=form, path="reference")
    for options in WAYS.values():
        check_same(guarded(net, n=n, form=form, **options), reference)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n", [1, 5])
def test_every_way_gives_the_reference_gradients_with_every_criterion(name, form, n):
    net = conv_net()
    reference = guarded(net, LOSSES[name], n=n, form=form, path="reference")
    for options in WAYS.values():
        step = guarded(net, LOSSES[name], n=n, form=form, **options)
        check_same(step, reference)
    assert list(guarded(net, LOSSES[name], n=n, form=form).taken) == ["shared"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", [*WAYS, "shared"])
def test_labels_that_are_learnt_as_they_are_get_their_gradients(form, way):
    net, labels = conv_net(), torch.rand(5, 3).softmax(1).requires_grad_()
    loss = Loss(targets=lambda net: labels)

    def gradients(**options: Any) -> list[Tensor]:
        step = guarded(net, loss, form=form, **options)
        return list(torch.autograd.grad(step.loss, [labels, *step.leaves]))

    got, wanted = gradients(**WAYS.get(way, {"path": way})), gradients(path="reference")
    assert distance(got[:1], wanted[:1]) < 1e-10 and distance(got, wanted) < 1e-10


def test_labels_that_are_computed_from_what_is_learnt_are_left_to_torch():
    net = Labels()
    step = guarded(net)
    check_same(step, guarded(net, path="reference"))
    assert step.taken == {"reference": {"calls": 1, "because": {"its targets are computed from what is trained": 1}}}
    with pytest.raises(UnsupportedLoss, match="memory 'low' was asked for, but is closed"):
        guarded(net, memory="low")


class CutOff(nn.Module):
    """Standardises, or rounds, its input by steps that no gradient passes."""

    def __init__(self, cut: str) -> None:
        super().__init__()
        self.net, self.cut = conv_net(), cut

    def forward(self, x: Tensor) -> Tensor:
        if self.cut == "round":
            return self.net((255 * x).round() / 255)
        with torch.no_grad():
            x = (x - 0.5) / 2
        return self.net(x)


@pytest.mark.parametrize(("cut", "form"), [("no_grad", "gradient"), ("no_grad", "loss"), ("round", "gradient")])
@pytest.mark.parametrize("way", [*WAYS, "shared", "reference"])
def test_a_network_that_cuts_its_input_off_is_refused_in_every_way(cut, form, way):
    with pytest.raises(UnsupportedLoss, match=r"cuts its input off \(.*\) or rounds it; apply this"):
        guarded(CutOff(cut), form=form, **WAYS.get(way, {"path": way}))
    assert not guarded(CutOff(cut), form=form, strength=0.0).taken


class Averaged(nn.Module):
    """Evaluates by averages of its weights, which are no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.averages = conv_net(), conv_net().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.training else self.averages(x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", [*WAYS, "reference"])
def test_a_penalty_that_reaches_no_parameter_is_refused(form, way):
    with pytest.raises(UnsupportedLoss, match="found that none does: .* by other tensors than its parameters"):
        guarded(Averaged(), form=form, **WAYS.get(way, {"path": way}))


class Hill(nn.Module):
    """A loss of -bend * |x|^2 / 2: a step against x raises it, and one that is longer than 2 |x| lowers it."""

    def __init__(self) -> None:
        super().__init__()
        self.bend, self.base = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.base - self.bend * x.flatten(1).square().sum(dim=1, keepdim=True) / 2


def column(output: Tensor, targets: Tensor) -> Tensor:
    return output[:, 0]


@pytest.mark.parametrize("way", [*WAYS, "shared"])
def test_the_sign_of_the_losses_difference_may_be_negative_and_flip(way):
    net, settings = Hill(), {"strength": 1.0, "h": 40.0, "h_ramp": 8, "form": "loss", "loss_fn": column}
    lengths, options = X.flatten(1).norm(dim=1), WAYS.get(way, {"path": way})
    criterion = guard_plugin.wrap(lambda o, t: column(o, t).mean(), net, **settings, **options)
    signs = set()
    for step in range(1, 9):
        h = 5.0 * step
        gap = (h * lengths - h * h / 2).mean()  # for a bend of 1
        signs.add(gap.sign().item())
        loss = criterion(net(X), Y)
        expected = 0.3 - 1.5 * (lengths.square() / 2).mean() + 1.5 * gap.abs()
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)
        of_bend, of_base = torch.autograd.grad(loss, [net.bend, net.base])
        torch.testing.assert_close(of_bend, gap.abs() - (lengths.square() / 2).mean(), rtol=1e-10, atol=0)
        torch.testing.assert_close(of_base, torch.tensor(1.0), rtol=1e-10, atol=0)
    assert signs == {1.0, -1.0}


class Coupled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x - 0.5 * x.mean(dim=0, keepdim=True))


class AlwaysRandom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(functional.dropout(x, 0.5, training=True))


def hooked() -> nn.Module:
    net = conv_net()
    list(net.modules())[-1].register_full_backward_hook(lambda *_: None)
    return net


def hooked_leaf() -> nn.Module:
    net = conv_net()
    next(net.parameters()).register_hook(lambda gradient: 2 * gradient)
    return net


CONDUCT = {
    "conv_net": (conv_net, "shared", None),
    "frozen_batch_norm": (frozen_batch_norm, "shared", None),
    "attention": (Attention, "shared", None),
    "batch_norm": (batch_norm, "separate", "BatchNorm2d may act otherwise in training"),
    "dropout": (dropout, "separate", "Dropout may act otherwise in training"),
    "hooked": (hooked, "separate", "a hook on its modules reads gradients"),
    "hooked_leaf": (hooked_leaf, "reference", "a hook on a parameter changes or reads its gradient"),
    "random": (AlwaysRandom, "reference", "it is random in evaluation too"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONDUCT)
def test_the_way_is_chosen_by_what_the_network_allows(name, form):
    make, path, reason = CONDUCT[name]
    net = make()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, form=form)
    examine(net)
    for _ in range(2):
        criterion(net(X), Y).backward()
    taken = criterion.paths.to_json()
    assert taken[path]["calls"] == 2 and list(taken) == [path]
    reasons = taken[path]["because"]
    assert sum(reasons.values()) == (0 if reason is None else 2)
    assert all(why.startswith(reason) for why in reasons)


@pytest.mark.parametrize("name", CONDUCT)
def test_a_way_that_is_asked_for_is_gone_or_refused(name):
    make, best, _ = CONDUCT[name]
    order = ("reference", "separate", "shared")
    for path in order:
        if order.index(path) <= order.index(best):
            assert list(guarded(make(), path=path, copied=False).taken) == [path]
        else:
            with pytest.raises(UnsupportedLoss, match=f"path '{path}' was asked for, but is closed.*: .*; leave it"):
                guarded(make(), path=path, copied=False)


def test_a_hook_on_a_parameter_changes_its_gradient_as_ever():
    net = conv_net()

    def gradients(**options: Any) -> list[Tensor]:
        model = copy.deepcopy(net)
        next(model.parameters()).register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))
        return guarded(model, copied=False, **options).gradients()

    assert distance(gradients(), gradients(path="reference")) < 1e-10


def test_the_way_is_chosen_anew_when_the_networks_flags_change():
    net = batch_norm()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7)
    criterion(net(X), Y)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for _ in range(3):
        criterion(net(X), Y)
    taken = criterion.paths.to_json()
    assert taken["separate"]["calls"] == 2 and taken["shared"]["calls"] == 2


def test_under_autocast_the_penalty_has_passes_of_its_own():
    net = conv_net().float()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = criterion(net(X.float()), Y)
        loss = criterion(net(X.float()), Y)
    assert criterion.paths.to_json() == {"separate": {"calls": 2, "because": {"autocast is on": 2}}}
    loss.backward()
    reference = copy.deepcopy(net)
    other = guard_plugin.wrap(nn.CrossEntropyLoss(), reference, strength=1.0, h=0.7, path="reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other(reference(X.float()), Y).backward()
    gradients = [[p.grad for p in model.parameters()] for model in (net, reference)]
    assert distance(*gradients) < 1e-2


def test_a_penalty_without_other_paths_is_left_to_torch():
    net = conv_net()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty="gradient_norm", strength=1.0)
    criterion(net(X), Y).backward()
    assert criterion.paths.to_json() == {"reference": {"calls": 1, "because": {"gradient_norm has no other path": 1}}}
    with pytest.raises(UnusableInput, match="penalty 'gradient_norm' cannot be had with memory 'low'.*reference only"):
        guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty="gradient_norm", strength=1.0, memory="low")


class Halving:
    """A plugin that computes the penalty itself."""

    @hookimpl
    def compute_penalty(self, call, penalty):
        return 0.5 * penalty(call.network, call.inputs, call.targets, loss_fn=call.loss_fn())


class Watching:
    """A plugin that notes each penalty."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    @hookimpl
    def guarded_step(self, call, value):
        self.values.append(value)


def test_a_plugin_that_computes_penalties_is_asked():
    net = conv_net()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.7)
    installed_plugins().register(Halving(), "halving", "test 1")
    penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.7, strength=2.0)
    torch.testing.assert_close(criterion(net(X), Y), functional.cross_entropy(net(X), Y) + 0.5 * penalty)
    assert criterion.paths.to_json() == {"reference": {"calls": 1, "because": {"a plugin computes penalties": 1}}}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", [*WAYS, "shared", "reference"])
def test_the_value_that_is_noted_is_the_penalty(form, way):
    net, watching = conv_net(), Watching()
    options = WAYS.get(way, {"path": way})
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=2.0, h=0.7, form=form, **options)
    installed_plugins().register(watching, "watching", "test 1")
    criterion(net(X), Y)
    penalty = guard_plugin.curvature_penalty(net, X, Y, h=0.7, strength=2.0, form=form)
    torch.testing.assert_close(watching.values, [penalty.detach()], rtol=1e-10, atol=0)
    assert not watching.values[0].requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "lower"}, "expected memory to be one of normal, low, got 'lower'"),
        ({"path": "shard"}, "expected path to be one of auto, shared, separate, reference, got 'shard'"),
        ({"memory": "low", "path": "shared"}, "expected path auto or separate with memory low, got 'shared'"),
        ({"memory": "low", "path": "reference"}, "expected path auto or separate with memory low, got 'reference'"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(UnusableInput, match=message):
        guard_plugin.wrap(nn.CrossEntropyLoss(), nn.Linear(2, 2), strength=1.0, h=1.0, **options)


def test_options_are_taken_out_and_none_is_not_given():
    options = {"memory": None, "path": "separate", "h": 3}
    paths = Paths(installed_plugins().hook, options)
    assert options == {"h": 3} and paths.counts.memory == "normal"
    with pytest.raises(UnusableInput, match="cannot be had with path 'separate'"):
        paths.check(GradientNorm(strength=1.0))


@pytest.mark.parametrize(("form", "passes"), [("gradient", 3), ("loss", 2)])
def test_memory_low_passes_a_small_part_at_a_time(form, passes):
    net, sizes = conv_net(), []
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, form=form, memory="low")
    x, y = torch.randn(70, 2, 8, 8), torch.randint(3, (70,))
    net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    for _ in range(2):
        criterion(net(x), y)  # examines the network
    sizes.clear()
    criterion(net(x), y)
    assert sizes[0] == 70 and max(sizes[1:]) <= 70 / 8 and sum(sizes[1:]) == passes * 70


@pytest.mark.parametrize("form", FORMS)
def test_the_hosts_own_graph_stays_usable(form):
    net = conv_net()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, form=form, path="shared")
    output = net(X)
    second = functional.mse_loss(output, torch.zeros_like(output))
    criterion(output, Y).backward(retain_graph=True)
    parameters = list(net.parameters())
    got = torch.autograd.grad(second, parameters)
    wanted = torch.autograd.grad(functional.mse_loss(net(X), torch.zeros_like(output)), parameters)
    assert distance(list(got), list(wanted)) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_a_further_term_on_the_output_adds_its_gradient(form):
    net = conv_net()

    def gradients(**options: Any) -> list[Tensor]:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=1.0, h=0.7, form=form, **options)
        output = model(X)
        (output.square().mean() + criterion(output, Y)).backward()
        return [parameter.grad for parameter in model.parameters()]

    assert distance(gradients(path="shared"), gradients(path="reference")) < 1e-12


@pytest.mark.skipif(not hasattr(torch._C._autograd, "_get_current_graph_task_keep_graph"), reason="an older torch")
@pytest.mark.parametrize("form", FORMS)
def test_the_graph_of_the_hosts_pass_ends_with_its_backward(form):
    net = conv_net()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, form=form, path="shared")
    output = net(X)
    loss = criterion(output, Y)
    loss.backward(retain_graph=True)
    assert output.grad_fn is not None
    loss.backward()
    assert output.grad_fn is None


def test_two_criteria_on_one_network_are_both_guarded():
    net = conv_net()
    both = [guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=s, h=0.7) for s in (1.0, 2.0)]
    output = net(X)
    for criterion in both:
        criterion(output, Y)
    assert [criterion.guarded for criterion in both] == [1, 1]


class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.inside = conv_net(), False

    def forward(self, x):
        if self.inside:
            return self.net(x)
        self.inside = True
        output = self(x)
        self.inside = False
        return output


@pytest.mark.parametrize("form", FORMS)
def test_a_network_that_calls_itself_is_closed_again(form):
    net = Recursive()
    check_same(guarded(net, form=form), guarded(net, form=form, path="reference"))
    assert _len_torch_function_stack() == 0


@pytest.mark.parametrize("path", ["separate", "shared"])
def test_channels_last_gives_the_reference_gradients(path):
    net, x = conv_net().to(memory_format=torch.channels_last), X.to(memory_format=torch.channels_last)

    def gradients(path: str) -> list[Tensor]:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=2.0, h=0.7, path=path)
        return list(torch.autograd.grad(criterion(model(x), Y), list(model.parameters())))

    assert distance(gradients(path), gradients("reference")) < 1e-10


class Dynamic(nn.Module):
    """Its kernels are computed from its input."""

    def __init__(self):
        super().__init__()
        self.kernels, self.last = nn.Linear(128, 54), nn.Linear(108, 3)

    def forward(self, x):
        kernels = self.kernels(x.flatten(1)).tanh().reshape(-1, 2, 3, 3)
        maps = functional.conv2d(x.reshape(1, -1, 8, 8), kernels, groups=len(x))
        return self.last(functional.softplus(maps).reshape(len(x), -1))


@pytest.mark.parametrize("path", ["separate", "shared"])
def test_kernels_that_are_computed_from_the_batch_get_their_gradient(path):
    net = Dynamic().double()
    check_same(guarded(net, path=path), guarded(net, path="reference"))


@pytest.mark.parametrize("form", FORMS)
def test_what_the_host_hangs_on_the_output_sees_its_gradient_once(form):
    net = conv_net()

    def of_output(**options: Any) -> Tensor:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=1.0, h=0.7, form=form, **options)
        output = model(X)
        output.retain_grad()
        criterion(output, Y).backward()
        return output.grad

    torch.testing.assert_close(of_output(), of_output(path="reference"))


def with_head_of_zeros(net: nn.Module) -> nn.Module:
    head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    return net


EQUAL = {"its outputs are all equal, which tells nothing of its layers": 1}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"memory": "low"}, {"separate": {"calls": 3, "because": {**EQUAL, "asked for": 2}}}),
        ({"path": "shared"}, {"separate": {"calls": 1, "because": EQUAL}, "shared": {"calls": 2, "because": {}}}),
    ],
    ids=["low", "shared"],
)
def test_a_head_that_begins_at_zero_is_passed_otherwise_until_it_tells_something(form, options, taken):
    net = with_head_of_zeros(conv_net())

    def trained(**options: Any) -> tuple[list[Tensor], GuardedCriterion]:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=1.0, h=0.7, form=form, **options)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            sgd.zero_grad()
            criterion(model(X), Y).backward()
            sgd.step()
        return [parameter.detach() for parameter in model.parameters()], criterion

    (got, criterion), (wanted, _) = trained(**options), trained(path="reference")
    assert criterion.paths.to_json() == taken
    assert distance(got, wanted) < 1e-10


def test_a_head_of_zeros_tells_nothing_of_what_is_before_it():
    net = with_head_of_zeros(Coupled())
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, memory="low")
    loss = criterion(net(X), Y)
    loss.backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    with pytest.raises(UnsupportedLoss, match="outputs depend on other examples"):
        criterion(net(X), Y)


@pytest.mark.parametrize("options", [{"memory": "low"}, {"path": "separate"}], ids=str)
def test_outputs_that_are_not_finite_for_one_call_do_not_end_the_run(options):
    net, reason = conv_net(), "its outputs are not finite numbers"
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, **options)
    criterion(net(X), Y), criterion(net(X * torch.inf), Y), criterion(net(X), Y)
    assert criterion.paths.to_json() == {
        "separate": {"calls": 2, "because": {"asked for": 2}},
        "reference": {"calls": 1, "because": {reason: 1}},
    }


def test_a_network_with_nothing_to_train_is_not_opened():
    frozen = conv_net().requires_grad_(False)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), frozen, strength=1.0, h=0.7)
    assert not frozen(X).requires_grad and criterion.guarded == 0


@pytest.mark.parametrize("form", FORMS)
def test_two_guarded_losses_on_one_output_add_up(form):
    net, other = conv_net(), torch.tensor([1, 1, 0, 2, 0])

    def gradients(**options: Any) -> list[Tensor]:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=1.0, h=0.7, form=form, **options)
        output = model(X)
        loss = 0.3 * criterion(output, Y) + 0.7 * criterion(output, other)
        return list(torch.autograd.grad(loss, list(model.parameters())))

    assert distance(gradients(path="shared"), gradients(path="reference")) < 1e-10


class Subtracting(nn.Module):
    """Modifies its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.sub_(0.5))


@pytest.mark.parametrize("way", ["auto", "shared", "reference"])
def test_a_batch_that_the_network_modifies_is_refused_and_is_what_it_would_be(way):
    net, x = Subtracting(), X.clone()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, path=way)
    output = net(x)
    assert torch.equal(x, X - 0.5)
    with pytest.raises(UnsupportedLoss, match="was modified in place"):
        criterion(output, Y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_gradients_accumulate_over_batches(form, way):
    net = conv_net()

    def gradients(**options: Any) -> list[Tensor]:
        model = copy.deepcopy(net)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), model, strength=1.0, h=0.7, form=form, **options)
        for part in (slice(0, 3), slice(3, 5)):
            (criterion(model(X[part]), Y[part]) / 2).backward()
        return [parameter.grad for parameter in model.parameters()]

    assert distance(gradients(**WAYS[way]), gradients(path="reference")) < 1e-10


@needs_torch(2, 3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_a_scaled_loss_leaves_the_unscaled_gradients(form, way):
    net = conv_net()
    step = guarded(net, form=form, copied=False, **WAYS[way])
    wanted = step.gradients(retain_graph=True)
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=1024.0), torch.optim.SGD(net.parameters(), lr=0.1)
    scaler.scale(step.loss).backward()
    assert distance([p.grad for p in net.parameters()], [1024 * g for g in wanted]) < 1e-12
    before = [parameter.detach().clone() for parameter in net.parameters()]
    scaler.step(optimizer)
    after = [b - 0.1 * g for b, g in strict_zip(before, wanted)]
    assert distance([parameter.detach() for parameter in net.parameters()], after) < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
def test_the_networks_output_is_bit_for_bit_the_plain_one(name, form):
    net = NETWORKS[name]()
    torch.manual_seed(3)
    plain = copy.deepcopy(net)(X)
    if name == "attention":  # the plain attention in the place of the fused one: another order of summation
        torch.testing.assert_close(guarded(net, form=form).output, plain, rtol=1e-12, atol=1e-14)
    else:
        assert torch.equal(guarded(net, form=form).output, plain)


def test_strength_zero_opens_nothing_and_is_bit_for_bit_the_plain_run():
    net = conv_net()
    inputs: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    step = guarded(net, strength=0, copied=False)
    assert inputs[0].data_ptr() == X.data_ptr() and not inputs[0].requires_grad and len(inputs) == 1
    loss = functional.cross_entropy(net(X), Y)
    assert torch.equal(step.loss, loss) and step.taken == {}
    assert all(map(torch.equal, step.gradients(), torch.autograd.grad(loss, step.leaves)))


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.error = conv_net(), None

    def forward(self, x: Tensor) -> Tensor:
        output = self.net(x)
        if self.error is not None:
            raise self.error
        return output


def test_after_an_error_in_the_forward_pass_nothing_is_left_behind():
    net = Raising()
    examine(net)
    plain = net(X)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7)
    net.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        net(X)
    assert _len_torch_function_stack() == 0
    net.error = None
    assert torch.equal(net(X), plain)
    criterion(net(X), Y)
    assert _len_torch_function_stack() == 0 and list(criterion.paths.to_json()) == ["shared"]


@pytest.mark.parametrize("form", FORMS)
def test_a_forward_pass_that_is_interrupted_is_over_at_the_next_one(form):
    net = conv_net()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7, form=form)
    examine(net)
    criterion(net(X), Y)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = next(net.children()).register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        net(X)
    handle.remove()
    for _ in range(2):
        criterion(net(X), Y)
        assert _len_torch_function_stack() == 0
    assert list(criterion.paths.to_json()) == ["shared"]


def test_after_unwrap_the_network_is_as_it_was():
    net = conv_net()
    plain = net(X)
    step = guarded(net, copied=False)
    step.criterion.unwrap()
    seen: list[bool] = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].requires_grad))
    again = net(X)
    assert _len_torch_function_stack() == 0 and seen == [False]
    assert torch.equal(again, plain)
    assert again.grad_fn.name() == plain.grad_fn.name()


def test_what_is_no_training_on_real_data_is_not_opened():
    net, seen = conv_net(), []
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.7)
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        net(X)
    net.eval()(X)
    synthetic = X.clone().requires_grad_()
    net.train()(synthetic)
    assert all(one.data_ptr() == X.data_ptr() for one in seen[:2]) and seen[2] is synthetic
    assert criterion.paths.to_json() == {}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["shared", "separate"])
def test_the_guarded_gradients_can_be_differentiated_again(form, path):
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )

    def second(**options: Any) -> list[Tensor]:
        step = guarded(net, form=form, **options)
        product = sum(gradient.square().sum() for gradient in step.gradients(create_graph=True))
        return list(torch.autograd.grad(product, step.leaves))

    assert distance(second(path=path), second(path="reference")) < 1e-10


@pytest.mark.parametrize("form", FORMS)
def test_differentiating_again_is_refused_under_memory_low(form):
    step = guarded(conv_net(), form=form, memory="low")
    with pytest.raises(UnsupportedLoss, match="use memory 'normal'"):
        step.gradients(create_graph=True)


@pytest.mark.parametrize("path", ["shared", "separate"])
def test_differentiating_again_is_refused_after_a_step(path):
    step = guarded(conv_net(), path=path)
    with torch.no_grad():
        next(step.net.parameters()).add_(1)
    with pytest.raises(UnsupportedLoss, match="found parameters, buffers or inputs modified in place"):
        step.gradients(create_graph=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_loss_that_also_reaches_the_parameters_by_itself_has_passes_of_its_own(form):
    net = conv_net()

    def gradients(**options: Any) -> tuple[list[Tensor], dict[str, Any]]:
        model = copy.deepcopy(net)
        examine(model)

        def decayed(output: Tensor, targets: Tensor) -> Tensor:
            decay = sum(parameter.square().sum() for parameter in model.parameters())
            return squared(output, targets).mean() + 0.1 * decay

        criterion = guard_plugin.wrap(decayed, model, loss_fn=squared, strength=1.0, h=0.7, form=form, **options)
        loss = criterion(model(X), Y)
        return list(torch.autograd.grad(loss, list(model.parameters()))), criterion.paths.to_json()

    (got, taken), (wanted, _) = gradients(), gradients(path="reference")
    assert distance(got, wanted) < 1e-10
    assert list(taken) == ["separate" if form == "loss" else "shared"]


def test_a_loss_that_is_no_mean_of_ours_has_passes_of_its_own_in_the_loss_form():
    loss = Loss(lambda: lambda o, t: squared(o, t).square().mean().sqrt(), loss_fn=squared)
    net = conv_net()
    step = guarded(net, loss, form="loss")
    check_same(step, guarded(net, loss, form="loss", path="reference"))
    assert list(step.taken) == ["separate"]
    assert list(step.taken["separate"]["because"]) == [
        "the host's loss is no constant times the mean of the examples' losses"
    ]


class Raised(Curvature):
    """A plugin's penalty that builds on the curvature penalty."""

    name = "raised"

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) + 0 * sum(p.sum() for p in args[0].parameters()) + 1000


def test_a_subclass_that_computes_another_penalty_is_asked(monkeypatch):
    plain = installed_plugins().penalties
    known = {**plain, "raised": Registered(Raised, "raised 1.0")}
    monkeypatch.setattr(type(installed_plugins()), "penalties", property(lambda self: known))
    net = conv_net()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, penalty="raised", strength=1.0, h=0.7)
    assert criterion(net(X), Y) > 1000
    assert list(criterion.paths.to_json()) == ["reference"]


def test_a_criterion_on_a_tuple_is_refused():
    net = conv_net()
    criterion = guard_plugin.wrap(lambda outputs, targets: outputs[0].sum(), net, strength=1.0, h=0.7, loss_fn=squared)
    with pytest.raises(UnsupportedLoss, match="on one tensor, got tuple"):
        criterion((net(X),), Y)
