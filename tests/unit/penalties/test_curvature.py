"""The penalty against oracles that share no code with it, in float64."""

import math
import random
from functools import partial

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import UnusableInput
from guard_plugin.penalties import Curvature, curvature_penalty
from guard_plugin.versions import strict_zip
from tests.versions import needs_torch

FORMS = ["gradient", "loss"]


pytestmark = pytest.mark.usefixtures("float64")


class Quadratic(nn.Module):
    """l(x) = x A x / 2 + b x, whose gradient difference along z is exactly h H z, with H = (A + A^T) / 2."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(d, d))
        self.b = nn.Parameter(torch.randn(d))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * ((x @ self.a) * x).sum(1, keepdim=True) + (x @ self.b)[:, None]


def first_column(output: Tensor, _: Tensor) -> Tensor:
    return output[:, 0]


def smooth_net(d: int = 5, classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, 7), nn.Tanh(), nn.Linear(7, classes))


def small_images(n: int = 4) -> tuple[nn.Sequential, Tensor, Tensor]:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 3, 3)
    )
    return net, torch.randn(n, 2, 6, 6), torch.tensor([0, 2, 1, 1])[:n]


def unit(g: Tensor) -> Tensor:
    return g / g.norm() if g.norm() > 0 else g


def by_the_formula(net, x, y, h, strength, form, loss_fn=None) -> float:
    """Example by example, with nothing vectorised: the formula as it is printed."""
    loss_fn = loss_fn or (lambda o, t: functional.cross_entropy(o, t, reduction="none"))

    def loss_and_gradient(xi, yi):
        xi = xi[None].clone().requires_grad_()
        loss = loss_fn(net(xi), yi[None])[0]
        return loss.item(), torch.autograd.grad(loss, xi)[0][0]

    squares, here, there = [], [], []
    for xi, yi in strict_zip(x, y):
        l0, g0 = loss_and_gradient(xi, yi)
        l1, g1 = loss_and_gradient(xi + h * unit(g0), yi)
        squares.append(float(((g1 - g0) ** 2).sum()))
        here.append(l0)
        there.append(l1)
    n = len(x)
    return strength * (sum(squares) / n if form == "gradient" else abs(sum(there) / n - sum(here) / n))


def test_a_quadratic_loss_gives_h_times_the_hessian_times_z():
    net, x, h = Quadratic(6), torch.randn(8, 6), 0.7
    hessian = (net.a + net.a.T) / 2
    z = torch.stack([unit(g) for g in (x @ hessian + net.b)])
    expected = 3.0 * ((h * z @ hessian) ** 2).sum(1).mean()
    penalty = curvature_penalty(net, x, torch.zeros(8), h=h, strength=3.0, loss_fn=first_column)
    torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=0)
    # z is held fixed, so the gradient with respect to A is that of h H z alone.
    wanted = torch.autograd.grad(3.0 * ((h * z.detach() @ ((net.a + net.a.T) / 2)) ** 2).sum(1).mean(), net.a)
    torch.testing.assert_close(torch.autograd.grad(penalty, net.a), wanted, rtol=1e-10, atol=1e-12)


def test_a_quadratic_loss_in_the_loss_form():
    net, x, h = Quadratic(6), torch.randn(8, 6), 0.7
    hessian = (net.a + net.a.T) / 2
    g = x @ hessian + net.b
    z = torch.stack([unit(row) for row in g])
    expected = 2.0 * (h * (g * z).sum(1) + 0.5 * h * h * ((z @ hessian) * z).sum(1)).mean().abs()
    penalty = curvature_penalty(net, x, torch.zeros(8), h=h, strength=2.0, form="loss", loss_fn=first_column)
    torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=0)


def test_the_loss_form_is_positive_where_the_step_overshoots_and_the_loss_falls():
    net, x, h = Quadratic(6), torch.randn(8, 6), 20.0
    with torch.no_grad():
        net.a.copy_(-torch.eye(6))  # l = -|x|^2 / 2: z = -x / |x|, and l(x + h z) - l(x) = h |x| - h^2 / 2 < 0
        net.b.zero_()
    expected = (h * h / 2 - h * x.norm(dim=1)).mean()
    penalty = curvature_penalty(net, x, torch.zeros(8), h=h, strength=1.0, form="loss", loss_fn=first_column)
    assert expected > 0
    torch.testing.assert_close(penalty, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 3, 3), (1, 2, 3, 2)])
def test_any_number_of_input_dimensions_agrees_with_the_formula(form, shape):
    d = math.prod(shape)
    net = nn.Sequential(nn.Unflatten(0, (-1, 1)) if shape == () else nn.Flatten(), smooth_net(d))
    x, y = torch.randn(4, *shape), torch.tensor([0, 1, 2, 1])
    got = curvature_penalty(net, x, y, h=0.5, strength=2.0, form=form)
    assert got.item() == pytest.approx(by_the_formula(net, x, y, 0.5, 2.0, form), rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_soft_labels_agree_with_the_formula(form):
    net, x = smooth_net(), torch.randn(4, 5)
    y = torch.rand(4, 3).softmax(1)
    got = curvature_penalty(net, x, y, h=0.5, strength=2.0, form=form)
    assert got.item() == pytest.approx(by_the_formula(net, x, y, 0.5, 2.0, form), rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_and_dropout_behave_as_in_evaluation(form):
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))
    net(torch.randn(32, 5))  # running statistics that are not the initial ones
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 1])
    got = curvature_penalty(net.train(), x, y, h=0.5, strength=2.0, form=form)
    assert got.item() == pytest.approx(by_the_formula(net.eval(), x, y, 0.5, 2.0, form), rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_the_value_is_the_mean_over_examples(form):
    net, x, y = smooth_net(), torch.randn(1, 5), torch.tensor([1])
    one = curvature_penalty(net, x, y, h=0.5, strength=1.0, form=form)
    many = curvature_penalty(net, x.repeat(6, 1), y.repeat(6), h=0.5, strength=1.0, form=form)
    torch.testing.assert_close(one, many)
    assert one.item() == pytest.approx(by_the_formula(net, x, y, 0.5, 1.0, form), rel=1e-10)


@needs_torch(2, 0)
@pytest.mark.parametrize("form", FORMS)
def test_parameter_gradients_are_finite_differences_with_z_held_fixed(form):
    net, x, y, h = smooth_net(), torch.randn(4, 5), torch.tensor([0, 1, 2, 1]), 0.6
    xs = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(functional.cross_entropy(net(xs), y, reduction="sum"), xs)
    z = torch.stack([unit(row) for row in g])
    names = [name for name, _ in net.named_parameters()]

    def with_z_fixed(*values: Tensor) -> Tensor:
        parameters = dict(strict_zip(names, values))

        def losses(inputs: Tensor) -> Tensor:
            return functional.cross_entropy(torch.func.functional_call(net, parameters, (inputs,)), y, reduction="none")

        a, b = x.clone().requires_grad_(), (x + h * z).requires_grad_()
        if form == "loss":
            return 2.0 * (losses(b).mean() - losses(a).mean()).abs()
        ga = torch.autograd.grad(losses(a).sum(), a, create_graph=True)[0]
        gb = torch.autograd.grad(losses(b).sum(), b, create_graph=True)[0]
        return 2.0 * ((gb - ga) ** 2).sum(1).mean()

    values = tuple(p.detach().clone().requires_grad_() for p in net.parameters())
    assert torch.autograd.gradcheck(with_z_fixed, values)  # the oracle itself, by finite differences
    expected = torch.autograd.grad(with_z_fixed(*values), values)
    penalty = curvature_penalty(net, x, y, h=h, strength=2.0, form=form)
    for got, wanted in strict_zip(torch.autograd.grad(penalty, list(net.parameters())), expected):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_memory_layout_does_not_matter(form):
    net, x, y = small_images()
    expected = curvature_penalty(net, x, y, h=0.5, strength=1.0, form=form)
    last = x.to(memory_format=torch.channels_last)
    strided = torch.empty(4, 2, 6, 12)[..., ::2].copy_(x)
    assert not strided.is_contiguous() and not last.is_contiguous()
    for layout in (last, strided):
        torch.testing.assert_close(curvature_penalty(net, layout, y, h=0.5, strength=1.0, form=form), expected)


@pytest.mark.parametrize("form", FORMS)
def test_examples_without_a_gradient_contribute_nothing(form):
    net, x = smooth_net(), torch.randn(4, 5)
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0])

    def masked(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target, reduction="none") * mask[: len(output)]

    y = torch.tensor([0, 1, 2, 1])
    got = curvature_penalty(net, x, y, h=0.5, strength=1.0, form=form, loss_fn=masked)
    half = curvature_penalty(net, x[[0, 2]], y[[0, 2]], h=0.5, strength=1.0, form=form)
    torch.testing.assert_close(got, half / 2)
    for gradient in torch.autograd.grad(got, list(net.parameters())):
        assert torch.isfinite(gradient).all()


def test_a_tiny_gradient_still_has_a_direction():
    net, x, y = smooth_net().float(), torch.randn(2, 5).float(), torch.tensor([0, 1])

    def tiny(output: Tensor, target: Tensor) -> Tensor:  # gradients near 1e-25, whose squares underflow in float32
        return functional.cross_entropy(output, target, reduction="none") * 1e-25

    got = curvature_penalty(net, x, y, h=0.5, strength=1e25, form="loss", loss_fn=tiny)
    assert got.item() == pytest.approx(curvature_penalty(net, x, y, h=0.5, strength=1.0, form="loss").item(), rel=1e-4)


def test_a_network_that_begins_in_place_is_not_disturbed():
    net = nn.Sequential(nn.ReLU(inplace=True), smooth_net())
    x, y = torch.randn(3, 5), torch.tensor([0, 1, 2])
    before = x.clone()
    curvature_penalty(net, x, y, h=0.5, strength=1.0).backward()
    assert torch.equal(x, before)


@pytest.mark.parametrize("form", FORMS)
def test_everything_is_left_as_it_was(form):
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )
    net.train()
    net[2].eval()  # as DC does: one BatchNorm frozen inside a network in train
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    net[0].weight.requires_grad_(False)
    x, y = torch.randn(4, 2, 6, 6, requires_grad=True), torch.tensor([0, 1, 2, 0])
    flags = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    grads = [p.grad.clone() for p in net.parameters()]
    random = torch.get_rng_state()
    curvature_penalty(net, x, y, h=0.5, strength=1.0, form=form)
    assert [m.training for m in net.modules()] == flags
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in strict_zip(net.parameters(), grads))
    assert torch.equal(torch.get_rng_state(), random)
    assert x.grad is None
    assert not net[0].weight.requires_grad


def test_buffers_and_random_streams_survive_a_network_that_uses_them_in_evaluation():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = smooth_net()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(x + 0.01 * torch.randn_like(x))

    net, random = Noisy(), torch.get_rng_state()
    curvature_penalty(net, torch.randn(2, 5), torch.tensor([0, 1]), h=0.5, strength=1.0)
    assert net.calls == 0
    torch.set_rng_state(random)
    expected = torch.randn(3)
    torch.set_rng_state(random)
    curvature_penalty(net, torch.zeros(2, 5), torch.tensor([0, 1]), h=0.5, strength=1.0)
    assert torch.equal(torch.randn(3), expected)


def test_buffers_that_are_replaced_or_changed_behind_autograd_and_every_random_stream_are_kept():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = smooth_net()
            self.register_buffer("replaced", torch.zeros(()))
            self.register_buffer("behind", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.replaced = self.replaced + 1
            self.behind.data.add_(1)
            random.random(), numpy.random.rand()
            return self.inner(x)

    net = Counts()
    python, numpys, kept = random.getstate(), numpy.random.get_state()[1].tolist(), net.replaced
    curvature_penalty(net, torch.randn(2, 5), torch.tensor([0, 1]), h=0.5, strength=1.0).backward()
    assert net.replaced is kept and net.replaced == 0 and net.behind == 0
    assert random.getstate() == python and numpy.random.get_state()[1].tolist() == numpys


def test_a_network_that_is_random_in_evaluation_draws_the_same_in_both_passes():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = smooth_net()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(functional.dropout(x, 0.5, training=True))

    x, y = torch.randn(8, 5), torch.tensor([0, 1] * 4)
    assert curvature_penalty(Masked(), x, y, h=1e-8, strength=1.0) < 1e-12


def test_flags_are_restored_after_an_error():
    net = smooth_net().train()
    with pytest.raises(UnusableInput, match=r"expected loss_fn to return one loss per example, shape \(2,\)"):
        curvature_penalty(
            net, torch.randn(2, 5), torch.tensor([0, 1]), h=0.5, strength=1.0, loss_fn=functional.cross_entropy
        )
    assert all(m.training for m in net.modules())


def test_strength_zero_makes_no_pass():
    def never(*_: object) -> Tensor:
        raise RuntimeError("a pass was made")

    net = smooth_net()
    net.register_forward_pre_hook(never)
    assert curvature_penalty(net, torch.randn(2, 5), torch.tensor([0, 1]), h=0.5, strength=0) == 0


@pytest.mark.parametrize("form", FORMS)
def test_without_gradients_the_value_is_the_same_and_detached(form):
    net, x, y = smooth_net(), torch.randn(4, 5), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        off = curvature_penalty(net, x, y, h=0.5, strength=1.0, form=form)
    assert not off.requires_grad
    torch.testing.assert_close(off, curvature_penalty(net, x, y, h=0.5, strength=1.0, form=form).detach())


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_without_denormal_numbers_an_example_without_gradient_counts_nothing(form):
    net, x = nn.Linear(5, 3), torch.randn(4, 5)
    losses = partial(functional.cross_entropy, reduction="none", ignore_index=0)

    def penalty(labels):
        return curvature_penalty(net, x, torch.tensor(labels), h=0.3, strength=1.0, form=form, loss_fn=losses)

    assert torch.set_flush_denormal(True)
    try:
        flushed = penalty([0, 1, 2, 1])
    finally:
        torch.set_flush_denormal(False)
    assert flushed > 0
    torch.testing.assert_close(flushed, penalty([0, 1, 2, 1]))


def test_a_network_with_few_parameters_of_another_precision_gets_its_own_inputs():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
            self.body = nn.Linear(5, 3, dtype=torch.float32)

        def forward(self, x):
            return self.body(x) * self.scale

    net, x, y = Scaled(), torch.randn(4, 5, dtype=torch.float32), torch.tensor([0, 1, 2, 1])
    expected = curvature_penalty(net.body, x, y, h=0.3, strength=1.0)
    torch.testing.assert_close(curvature_penalty(net, x, y, h=0.3, strength=1.0), expected)


def test_under_autocast_the_penalty_is_in_full_precision():
    net, x, y = smooth_net().float(), torch.randn(4, 5).float(), torch.tensor([0, 1, 2, 1])
    expected = curvature_penalty(net, x, y, h=0.5, strength=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(curvature_penalty(net, x, y, h=0.5, strength=1.0), expected)
    half = curvature_penalty(net, x.bfloat16(), y, h=0.5, strength=1.0)
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h": 0.0}, "expected h, .* > 0, got 0.0"),
        ({"h": -1.0}, "got -1.0"),
        ({"h": math.nan}, "got nan"),
        ({"h": math.inf}, "got inf"),
        ({"h": "3"}, "got '3'"),
        ({"strength": -1.0}, "expected strength .* >= 0, got -1.0"),
        ({"strength": math.nan}, "got nan"),
        ({"form": "both"}, "expected form to be one of gradient, loss, got 'both'"),
        ({"x": torch.zeros(0, 5), "y": torch.zeros(0, dtype=torch.int64)}, r"at least one example.*got shape \(0, 5\)"),
        ({"x": torch.zeros(2, 5, dtype=torch.int64)}, "floating-point inputs"),
        ({"y": [0, 1]}, "expected targets to be a tensor, got list"),
        ({"y": torch.tensor([0])}, r"one target per example, got targets of shape \(1,\) for 2 examples"),
    ],
)
def test_unusable_input_is_refused(change, message):
    arguments = {"x": torch.randn(2, 5), "y": torch.tensor([0, 1]), "h": 0.5, "strength": 1.0, **change}
    x, y = arguments.pop("x"), arguments.pop("y")
    with pytest.raises(UnusableInput, match=message):
        curvature_penalty(smooth_net(), x, y, **arguments)
    if not {"x", "y"} & set(change):
        with pytest.raises(UnusableInput, match=message):
            Curvature(**arguments)


def test_a_model_that_is_no_module_is_refused():
    with pytest.raises(UnusableInput, match="expected a network, a torch.nn.Module, got function"):
        curvature_penalty(first_column, torch.randn(2, 5), torch.tensor([0, 1]), h=0.5, strength=1.0)


def test_batch_norm_without_running_statistics_is_refused():
    net = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(UnusableInput, match=r"found 1 \(BatchNorm1d\) with track_running_stats=False"):
        curvature_penalty(net, torch.randn(4, 5), torch.tensor([0, 1, 2, 1]), h=0.5, strength=1.0)


def test_scale_h_keeps_the_step_per_value():
    assert guard_plugin.scale_h(3.0, from_shape=(3, 224, 224), to_shape=(3, 32, 32)) == pytest.approx(3.0 / 7)
    with pytest.raises(UnusableInput, match="positive sizes"):
        guard_plugin.scale_h(3.0, from_shape=(3, 0), to_shape=(3, 3))


@pytest.mark.skipif(not hasattr(numpy.random, "set_bit_generator"), reason="numpy before 1.24 has no other generators")
def test_numpys_other_bit_generators_are_kept_too():
    own = numpy.random.get_bit_generator()
    numpy.random.set_bit_generator(numpy.random.PCG64(0))
    try:
        net, x, y = small_images()
        before = numpy.random.get_state(legacy=False)
        criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), net, h=0.1, strength=1.0)
        for _ in range(3):
            criterion(net(x), y)
        assert numpy.random.get_state(legacy=False) == before and criterion.guarded == 3
    finally:
        numpy.random.set_bit_generator(own)
