"""Each pass of a penalty is right and alike; oracles: finite differences, a per-example loop, the plain run."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import guard_plugin
from guard_plugin.errors import UnsupportedLoss
from guard_plugin.versions import strict_zip
from tests.versions import needs_fast_paths

pytestmark = pytest.mark.usefixtures("float64")
Y = torch.tensor([0, 1, 2, 1, 0, 2])
H, STRENGTH = 0.3, 2.0
OPTIONS = [{}, {"path": "separate"}, {"path": "reference"}, {"memory": "low"}]


def batch() -> Tensor:
    return torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def by_differences(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient form of one example after the other, with gradients by central differences."""

    def loss(one: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            # Twice the same example: torch's kernels for a batch of one are not to be trusted.
            return functional.cross_entropy(net(torch.stack([one, one])), torch.stack([target, target]))

    def gradient(one: Tensor, target: Tensor) -> Tensor:
        eps, steps = 1e-5, torch.eye(one.numel()).view(-1, *one.shape)
        ups = [loss(one + eps * step, target) - loss(one - eps * step, target) for step in steps]
        return torch.stack(ups).view_as(one) / (2 * eps)

    total = torch.zeros(())
    for one, target in strict_zip(x, y):
        here = gradient(one, target)
        total += (gradient(one + H * here / here.norm(), target) - here).square().sum()
    return STRENGTH * total / len(x)


class Transposed(nn.Module):
    """A normalisation whose gradient arrives in another memory format than its input has."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm, self.last = nn.Conv2d(2, 4, 3), norm, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x)).flatten(2).transpose(1, 2)  # (n, positions, channels)
        return self.last(torch.tanh(hidden @ torch.eye(4))).mean(dim=1)


def with_statistics(norm: nn.Module) -> nn.Module:
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm.eval()


class Attending(nn.Module):
    """What follows the normalisation has the gradient arrive in the order (positions, n, channels)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm, self.last = nn.Conv2d(2, 4, 3), norm, nn.Linear(4, 3)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x)).flatten(2).transpose(1, 2)
        return self.last(self.attention(hidden, hidden, hidden, need_weights=False)[0].flatten(1)[:, :4])


NORMS = {
    "InstanceNorm": lambda: nn.InstanceNorm2d(4, affine=True),
    "InstanceNorm with statistics": lambda: with_statistics(nn.InstanceNorm2d(4, track_running_stats=True)),
    "BatchNorm": lambda: with_statistics(nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("kind", [Transposed, Attending])
def test_normalisations_of_one_example_have_the_right_gradient(kind, norm, n, options):
    net, x = kind(norm()), batch()[:n]
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H, **options)
    for _ in range(3):
        penalty = criterion(net(x), Y[:n]) - functional.cross_entropy(net(x), Y[:n])
        torch.testing.assert_close(penalty, by_differences(net, x, Y[:n]), rtol=1e-5, atol=0)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool, norm: bool, attention: bool = False):
        super().__init__()
        torch.manual_seed(1)
        layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.Tanh()]
        self.body, self.last, self.reentrant = nn.Sequential(*layers), nn.Linear(16, 3), reentrant
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True) if attention else None
        self.checkpointed, self.calls = True, 0

    def part(self, x: Tensor) -> Tensor:
        self.calls += 1
        hidden = self.body(x)
        if self.attention is not None:
            rows = hidden.flatten(2).transpose(1, 2)
            hidden = self.attention(rows, rows, rows, need_weights=False)[0]
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        if not self.checkpointed:
            return self.last(self.part(x).flatten(1))
        return self.last(checkpoint(self.part, x, use_reentrant=self.reentrant).flatten(1))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("options", [*OPTIONS, {"form": "loss"}, {"form": "loss", "path": "reference"}], ids=str)
@pytest.mark.parametrize(("norm", "attention"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_networks_are_guarded(reentrant, norm, attention, options):
    """Oracle: the same network without checkpoints, on path reference."""
    form = options.get("form", "gradient")
    x = batch().requires_grad_(False)
    net = Checkpointed(reentrant, norm, attention)
    plain = copy.deepcopy(net)
    plain.checkpointed = False
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H, **options)
    reference = guard_plugin.wrap(nn.CrossEntropyLoss(), plain, strength=STRENGTH, h=H, form=form, path="reference")
    counted = copy.deepcopy(net)
    for _ in range(3):
        plain.load_state_dict(net.state_dict())  # the host's own recomputation updates running statistics once more
        for model, judge in ((net, criterion), (plain, reference), (counted, nn.CrossEntropyLoss())):
            model.zero_grad()
            judge(model(x), Y).backward()
        if not reentrant:  # with it, torch gives the first layers no gradient for an input that needs none
            for own, expected in strict_zip(net.parameters(), plain.parameters()):
                torch.testing.assert_close(own.grad, expected.grad, rtol=1e-8, atol=1e-11)
        assert net.calls == counted.calls
    assert criterion.guarded == 3


class Hyper(nn.Module):
    """A network whose weights another one computes, once for many passes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.code, self.make, self.last = nn.Parameter(torch.randn(5)), nn.Linear(5, 32 * 4), nn.Linear(4, 3)
        self.compute()

    def compute(self) -> None:
        self.weight = self.make(self.code).view(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(x.flatten(1) @ self.weight))


@pytest.mark.filterwarnings("ignore:Hyper was trained:UserWarning")
@pytest.mark.parametrize("form", ["gradient", "loss"])
@pytest.mark.parametrize("options", [{}, {"path": "reference"}], ids=str)
def test_weights_that_are_computed_once_outside_keep_their_graph(form, options):
    """Oracle: the penalty's own formula on the same network."""
    net, x = Hyper(), batch()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H, form=form, **options)
    for step in range(5):
        if step == 2:
            net.compute()  # the graph of the last steps was freed by their backward pass
        wanted = functional.cross_entropy(net(x), Y)
        wanted = wanted + guard_plugin.curvature_penalty(net, x, Y, h=H, strength=STRENGTH, form=form)
        gradients = torch.autograd.grad(wanted, list(net.parameters()), retain_graph=True)
        loss = criterion(net(x), Y)
        torch.testing.assert_close(torch.autograd.grad(loss, list(net.parameters()), retain_graph=True), gradients)
        if step in (1, 4):
            loss.backward()
            if step == 1:
                net.zero_grad()
    assert list(criterion.paths.to_json()) == ["reference"]


@needs_fast_paths
def test_weights_that_are_computed_in_each_pass_take_the_fast_ways():
    net = nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(32, 4)), nn.Tanh(), nn.Linear(4, 3)
    )
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H)
    for _ in range(3):
        criterion(net(batch()), Y).backward()
    assert "reference" not in criterion.paths.to_json()


@pytest.mark.parametrize("options", [*OPTIONS[:3], {"penalty": "gradient_norm"}], ids=str)
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_without_a_second_derivative_is_named(options, nested):
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.hardsigmoid(x) * x

    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 4), Gate() if nested else nn.Hardsigmoid(), nn.Linear(4, 3))
    settings = {"strength": STRENGTH, **({} if "penalty" in options else {"h": H}), **options}
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, **settings)
    name = r"2 \(Gate\)" if nested else r"2 \(Hardsigmoid\)"
    with pytest.raises(UnsupportedLoss, match=rf"found {name}, for which torch has no second derivative; use .*form"):
        criterion(net(batch()), Y)
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H, form="loss")
    for _ in range(3):
        criterion(net(batch()), Y).backward()
    assert criterion.guarded == 3


@pytest.mark.parametrize("options", [*OPTIONS, {"form": "loss"}], ids=str)
def test_a_layer_that_works_in_place_after_a_dropout_is_named(options):
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.ReLU(), nn.Dropout(), nn.SiLU(inplace=True), nn.Linear(4, 3))
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H, **options)
    with pytest.raises(UnsupportedLoss, match=r"one of 4 \(SiLU\); after a dropout, .* build it with inplace=False"):
        criterion(net(batch()), Y)


@needs_fast_paths
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_channels_last_stays_what_it_is(dropout):
    """Oracle: the plain run, bit for bit."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Dropout(dropout), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 3)
    ).to(memory_format=torch.channels_last)
    x = batch().contiguous(memory_format=torch.channels_last)

    def losses(criterion) -> list[float]:
        torch.manual_seed(5)
        return [criterion(net(x), Y).item() for _ in range(4)]

    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=1e-300, h=H)
    assert losses(criterion) == losses(nn.CrossEntropyLoss())
    assert list(criterion.paths.to_json()) == (["separate"] if dropout else ["separate", "shared"])
    exact = guard_plugin.wrap(nn.CrossEntropyLoss(), net.eval().train(not dropout), strength=STRENGTH, h=H)
    if not dropout:
        penalty = exact(net(x), Y) - functional.cross_entropy(net(x), Y)
        torch.testing.assert_close(penalty, by_differences(net, x, Y), rtol=1e-5, atol=0)


@pytest.mark.parametrize("options", [*OPTIONS[:3], {"penalty": "gradient_norm"}, {"form": "loss"}], ids=str)
def test_running_statistics_that_change_before_the_backward_pass_do_not_change_the_penalty(options):
    """Gradient accumulation over two batches; torch counts no change of running statistics. Oracle: one at a time."""
    settings = {"strength": STRENGTH, **({} if "penalty" in options else {"h": H}), **options}

    def gradients(together: bool) -> list[Tensor]:
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, **settings)
        first = criterion(net(batch()), Y)
        if not together:
            first.backward()
        second = criterion(net(3 * batch() + 1), Y)
        (first + second if together else second).backward()
        return [parameter.grad for parameter in net.parameters()]

    torch.testing.assert_close(gradients(True), gradients(False), rtol=1e-9, atol=1e-12)


class Retaining(nn.Module):
    """A network that asks for the gradient of its activations, and changes it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last, self.seen = nn.Linear(32, 4), nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.flatten(1)).tanh()
        hidden.retain_grad()
        hidden.register_hook(lambda gradient: None)
        return self.last(hidden)


@pytest.mark.parametrize(
    "options", [*OPTIONS, {"penalty": "trades", "eps": 0.1}, {"penalty": "gradient_norm"}], ids=str
)
def test_a_network_that_puts_hooks_on_its_tensors_is_guarded(options):
    settings = {"strength": STRENGTH, **({} if "penalty" in options else {"h": H}), **options}
    net = Retaining()
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, **settings)
    for _ in range(3):
        criterion(net(batch()), Y).backward()
    assert criterion.guarded == 3


@needs_fast_paths
@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_graphs_that_torchs_engine_makes_in_threads_of_its_own_are_the_penaltys(form, monkeypatch):
    """On CUDA, the nodes of a gradient's graph are numbered by the engine's thread for the device."""
    differentiate = torch.autograd.grad

    def in_a_thread(*args, **kwargs):
        if not kwargs.get("create_graph"):
            return differentiate(*args, **kwargs)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(differentiate, *args, **kwargs).result()

    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(16, 3))
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, strength=STRENGTH, h=H, form=form)
    monkeypatch.setattr(torch.autograd, "grad", in_a_thread)
    for _ in range(3):
        criterion(net(batch()), Y).backward()
    assert {path: taken["calls"] for path, taken in criterion.paths.to_json().items()} == {"separate": 1, "shared": 2}
