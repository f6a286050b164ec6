"""Networks whose outputs for an example depend on others, or on chance, are refused on every way."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import GuardError, UnsupportedLoss

X = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1, 0, 2])


class Net(nn.Module):
    """A network with something of its own between its first layer and its last."""

    def __init__(self, between=lambda hidden: hidden):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Conv2d(2, 4, 3), nn.Linear(16, 3)
        self.between = between

    def forward(self, x):
        return self.last(self.between(self.first(x)).tanh().flatten(1))


class OwnBatchNorm(nn.BatchNorm2d):
    def __init__(self):
        super().__init__(4, track_running_stats=False)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class Differentiates(Net):
    """Returns what depends on the gradient of its own first layer."""

    def forward(self, x):
        hidden = self.first(x).tanh()
        (gradient,) = torch.autograd.grad(hidden.square().sum(), hidden, create_graph=True)
        return self.last((hidden + 0.1 * gradient).flatten(1))


@pytest.mark.parametrize("options", [{}, {"path": "separate"}, {"path": "reference"}, {"form": "loss"}], ids=str)
def test_a_network_that_differentiates_in_its_forward_is_guarded(options):
    net = Differentiates()
    by_hand = nn.Sequential(net.first, nn.Tanh(), Times(1.2), nn.Flatten(), net.last)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3, **options)
    form = options.get("form", "gradient")
    for _ in range(3):
        expected = guard_plugin.curvature_penalty(by_hand, X, Y, h=0.3, strength=1.0, form=form)
        torch.testing.assert_close(criterion(net(X), Y), functional.cross_entropy(by_hand(X), Y) + expected)
    assert criterion.guarded == 3


COUPLED = {
    "batch_norm by function": lambda h: functional.batch_norm(h, None, None, training=True),
    "minus the mean": lambda h: h - h.mean(0),
    "minus little of the mean": lambda h: h - 1e-6 * h.mean(0),
    "by detached statistics": lambda h: h / h.detach().std(0),
    "softmax over the batch": lambda h: h.softmax(0),
    "attention over the batch": lambda h: (h.flatten(1) @ h.flatten(1).T).softmax(1).matmul(h.flatten(1)).view_as(h),
    "sorted": lambda h: h.sort(0)[0],
    "neighbours in pairs": lambda h: h + h.view(3, 2, *h.shape[1:]).flip(1).view_as(h),
    "minus the first": lambda h: h - h[:1],
    "minus the first, detached": lambda h: h - h[:1].detach(),
    "sum of those before": lambda h: h.cumsum(0),
    "in pairs": lambda h: h - h.unflatten(0, (-1, 2)).mean(1).repeat_interleave(2, 0),
    "with one half of the batch away": lambda h: h + h.roll(len(h) // 2, 0),
}
WAYS = [{}, {"path": "separate"}, {"path": "reference"}, {"memory": "low"}, {"form": "loss"}]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("between", COUPLED.values(), ids=COUPLED)
def test_examples_that_depend_on_each_other_are_refused(between, options):
    net = Net(between)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3, **options)
    with pytest.raises(UnsupportedLoss, match="outputs depend on other examples of the batch"):
        criterion(net(X), Y)


@pytest.mark.parametrize("penalty", [{"penalty": "gradient_norm"}, {"penalty": "trades", "eps": 0.1}], ids=str)
def test_every_penalty_refuses_them(penalty):
    net = Net(COUPLED["minus the mean"])
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=0.5, **penalty)
    with pytest.raises(UnsupportedLoss, match="outputs depend on other examples of the batch"):
        criterion(net(X), Y)


def test_a_subclass_of_batch_norm_without_statistics_is_refused_by_name():
    net = Net()
    net.between = OwnBatchNorm()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    for call in (lambda: criterion(net(X), Y), lambda: guard_plugin.curvature_penalty(net, X, Y, h=0.3, strength=1)):
        with pytest.raises(GuardError, match=r"found between \(OwnBatchNorm\) with track_running_stats=False"):
            call()


def test_a_first_batch_of_one_does_not_tell():
    net = Net(COUPLED["minus the mean"])
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    for _ in range(3):
        criterion(net(X[:1]), Y[:1])
    with pytest.raises(UnsupportedLoss, match="other examples of the batch"):
        criterion(net(X), Y)


def test_a_coupling_that_begins_later_is_found_at_the_second_call():
    net = Net()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    criterion(net(X), Y)
    net.between = COUPLED["minus the mean"]
    with pytest.raises(UnsupportedLoss, match="other examples of the batch"):
        for _ in range(8):
            criterion(net(X), Y)


class FixedBatch(Net):
    def forward(self, x):
        return super().forward(x).view(6, 3)


class NeedsSeveral(nn.Module):
    """One value per group: torch refuses a batch of one."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.GroupNorm(4, 4), nn.Linear(4, 3))

    def forward(self, x):
        return self.net(x)


class AssertsBatch(Net):
    def forward(self, x):
        assert len(x) == 6
        return super().forward(x)


@pytest.mark.parametrize(
    ("net", "n"), [(FixedBatch(), 6), (AssertsBatch(), 6), (NeedsSeveral(), 2), (Net(nn.BatchNorm2d(4)), 6)]
)
@pytest.mark.parametrize("options", [{}, {"form": "loss"}], ids=str)
def test_what_cannot_be_passed_a_part_of_its_batch_is_not_refused(net, n, options):
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3, **options)
    for _ in range(3):
        criterion(net(X[:n]), Y[:n]).backward()
    assert criterion.guarded == 3


HIDDEN = torch.Generator().manual_seed(3)


def test_noise_from_a_generator_that_cannot_be_found_is_refused():
    net = Net(lambda h: h + torch.randn(h.shape, generator=HIDDEN))
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    with pytest.raises(UnsupportedLoss, match="random numbers whose generator cannot be found"):
        criterion(net(X), Y)


class Noisy(Net):
    """Adds noise from a generator of its own, counts its calls, and keeps what it saw."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.generator = {
            "torch": torch.Generator().manual_seed(3),
            "numpy": np.random.default_rng(3),
            "legacy": np.random.RandomState(3),
        }[kind]
        self.calls, self.seen, self.last_mean = 0, [], 0.0

    def noise(self, shape) -> Tensor:
        if self.kind == "torch":
            return torch.randn(shape, generator=self.generator)
        return torch.from_numpy(np.asarray(self.generator.normal(size=tuple(shape)))).float()

    def forward(self, x):
        self.calls += 1
        self.seen.append(float(x.detach().sum()))
        self.last_mean = float(x.detach().mean())
        return super().forward(x + 0.1 * self.noise(x.shape))


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("kind", ["torch", "numpy", "legacy"])
def test_a_generator_of_its_own_draws_alike_in_each_pass_and_is_left_as_the_plain_run_leaves_it(kind, options):
    if options.get("memory"):
        pytest.skip("parts of a batch draw other numbers: refused")

    def run(guarded: bool) -> tuple[Noisy, list[float]]:
        net, plain = Noisy(kind), nn.CrossEntropyLoss()
        criterion = guard_plugin.wrap(plain, net, strength=1e-12, h=0.3, **options) if guarded else plain
        return net, [criterion(net(X), Y).item() for _ in range(3)]

    (net, losses), (other, plain) = run(True), run(False)
    assert losses == plain
    assert (net.calls, net.seen, net.last_mean) == (other.calls, other.seen, other.last_mean)
    assert torch.equal(net.noise((3,)), other.noise((3,)))


def test_the_penalty_of_a_noisy_network_uses_one_draw():
    """Oracle: the same network with that draw as a constant."""
    net = Noisy("torch").double()
    x, fixed = X.double(), Net().double()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    outputs = net(x)
    state = net.generator.get_state()
    noise = 0.1 * net.noise(x.shape)
    net.generator.set_state(state)
    shifted = nn.Module()
    shifted.forward = lambda inputs: fixed(inputs + noise)
    penalty = guard_plugin.curvature_penalty(shifted, x, Y, h=0.3, strength=1.0)
    torch.testing.assert_close(criterion(outputs, Y) - functional.cross_entropy(outputs, Y), penalty)


def test_a_layer_that_needs_several_values_is_refused_with_memory_low():
    net = NeedsSeveral()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3, memory="low")
    with pytest.raises(UnsupportedLoss, match="closed to this loss call: it cannot be passed 1 of its examples"):
        criterion(net(X[:3]), Y[:3])


class Counts(Net):
    """Counts in a tensor that is no buffer, in place, and keeps hooks on its activations."""

    def __init__(self):
        super().__init__()
        self.count, self.gradients = torch.zeros(()), []

    def forward(self, x):
        self.count += 1
        hidden = self.first(x)
        if torch.is_grad_enabled():
            hidden.retain_grad()
            hidden.register_hook(lambda gradient: None)
        return self.last(hidden.tanh().flatten(1))


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_tensors_that_are_no_buffers_and_hooks_on_activations_are_the_plain_runs(options):
    net = Counts()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3, **options)
    for step in range(1, 4):
        criterion(net(X), Y).backward()
        assert net.count.item() == step


class Retains(Net):
    def forward(self, x):
        hidden = self.first(x)
        if not self.last.weight.grad_fn and self.training:
            hidden.retain_grad()
        return self.last(hidden.tanh().flatten(1))


def test_a_network_that_puts_hooks_on_tensors_is_guarded():
    net = Retains()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    for _ in range(3):
        criterion(net(X), Y).backward()
    assert criterion.guarded == 3 and "shared" not in criterion.paths.to_json()


def test_a_normalisation_whose_gradient_torch_may_get_wrong_is_not_shared():
    net = Net()
    net.between = nn.InstanceNorm2d(4)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    for _ in range(3):
        criterion(net(X), Y).backward()
    assert "torch's gradient of its normalisation of one example may be wrong on a CPU" in str(
        criterion.paths.to_json()
    )


@pytest.mark.parametrize("between", COUPLED.values(), ids=COUPLED)
def test_the_penalty_that_is_called_directly_refuses_them_too(between):
    with pytest.raises(UnsupportedLoss, match="depend on other examples of the batch"):
        guard_plugin.curvature_penalty(Net(between), X, Y, h=0.3, strength=1.0)


class CoupledAndFixed(Net):
    """It takes batches of 12 only, of which more than the gradient is asked for."""

    def forward(self, x):
        return super().forward(x.view(12, 2, 4, 4) - x.mean(0))


def test_a_network_of_a_fixed_batch_size_is_examined_with_a_whole_batch():
    net = CoupledAndFixed()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1.0, h=0.3)
    with pytest.raises(UnsupportedLoss, match="depend on other examples of the batch"):
        criterion(net(torch.cat([X, -X])), torch.cat([Y, Y]))
