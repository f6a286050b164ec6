"""The operations that differentiate twice at less cost, against torch's own derivatives, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _len_torch_function_stack

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.fast.precomputed import PrecomputedGradient
from guard_plugin.penalties.fast.second_order import SecondOrder
from guard_plugin.penalties.fast.second_order.batch_norm import FrozenBatchNorm
from guard_plugin.penalties.fast.second_order.convolution import Convolution
from guard_plugin.penalties.fast.second_order.group_norm import GroupNorm
from guard_plugin.penalties.fast.second_order.wanted import Wanted
from guard_plugin.versions import plain_attention, strict_zip

pytestmark = pytest.mark.usefixtures("float64")

SIZES = {1: (7,), 2: (5, 6), 3: (4, 3, 5)}
GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2, "bias": False},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 2, "padding": 2, "bias": False},
]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x.flatten(2).transpose(1, 2)).chunk(3, dim=2)
        return functional.scaled_dot_product_attention(q, k, v)


def convolutions() -> list:
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    return [
        pytest.param(lambda d=d, g=g: kinds[d](4, 8, 2, **g), SIZES[d], id=f"conv{d}d-{i}")
        for d in kinds
        for i, g in enumerate(GEOMETRIES)
    ]


def norms() -> list:
    return [
        pytest.param(lambda n=n, a=a: randomised(nn.GroupNorm(n, 4, affine=a)), SIZES[d], id=f"groupnorm{n}-{d}d-{a}")
        for d, n, a in [(1, 1, True), (1, 2, False), (2, 1, False), (2, 2, True), (2, 4, True), (3, 2, True)]
    ]


def frozen(module: nn.Module) -> nn.Module:
    """A batch normalisation in evaluation, with statistics of its own."""
    module.running_mean.normal_()
    module.running_var.uniform_(0.5, 2)
    return randomised(module).eval()


def frozen_norms() -> list:
    kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    return [
        pytest.param(lambda d=d, a=a: frozen(kinds[d](4, affine=a)), SIZES[d], id=f"batchnorm{d}d-{a}")
        for d, a in [(1, True), (2, True), (2, False), (3, True)]
    ] + [pytest.param(lambda: frozen(nn.BatchNorm1d(4)), (), id="batchnorm-features")]


class RectifiesInPlace(nn.Module):
    """Goes on with the tensor that was changed, not with what the function returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        functional.relu(features, inplace=True)
        return self.second(features)


class CrossEntropy(nn.Module):
    """Losses per example of fixed classes, one of which is ignored."""

    def __init__(self, *, weighted: bool) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, 2.0, 0.0, 3.0]) if weighted else None)

    def forward(self, x: Tensor) -> Tensor:
        classes = (torch.arange(len(x)) + 3) % 4
        return functional.cross_entropy(x, classes, self.weight, ignore_index=0, reduction="none").unsqueeze(1)


def others() -> list:
    pools = [{}, {"stride": 1, "padding": 1}, {"ceil_mode": True, "count_include_pad": False}, {"divisor_override": 3}]
    return [
        pytest.param(lambda: nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)), SIZES[2], id="relu"),
        pytest.param(RectifiesInPlace, SIZES[2], id="relu-in-place"),
        *(pytest.param(lambda p=p: nn.AvgPool2d(2, **p), SIZES[2], id=f"averagepool-{i}") for i, p in enumerate(pools)),
        pytest.param(lambda: nn.Linear(4, 5), (), id="linear-bias"),
        pytest.param(lambda: nn.Linear(4, 5, bias=False), (), id="linear"),
        pytest.param(lambda: CrossEntropy(weighted=False), (), id="crossentropy"),
        pytest.param(lambda: CrossEntropy(weighted=True), (), id="crossentropy-weighted"),
    ]


LAYERS = [
    *convolutions(),
    *norms(),
    *frozen_norms(),
    *others(),
    pytest.param(Attention, SIZES[2], id="attention"),
]


def randomised(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def derivatives(layer: nn.Module, x: Tensor, operations: SecondOrder | None) -> list[Tensor]:
    """Values, first and second derivatives; with ``operations`` as the penalty asks for them."""
    torch.manual_seed(7)
    with operations or plain_attention():  # torch's fused attention has no second derivative
        output = layer(x)
    losses = (output * torch.randn(output.shape)).tanh().flatten(1).sum(dim=1)
    leaves = [*layer.parameters(), x]
    first = torch.autograd.grad(losses.sum(), leaves, retain_graph=True)
    if operations is None:
        (of_x,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    else:
        of_x = operations.gradient_of_batch(losses)
    product = (of_x * torch.randn(of_x.shape)).sum()
    second = torch.autograd.grad(product, leaves, allow_unused=True, materialize_grads=True)
    return [output.detach(), *first, of_x.detach(), *second]


def assert_close(got: list[Tensor], wanted: list[Tensor]) -> None:
    for index, (one, other) in enumerate(strict_zip(got, wanted)):
        scale = max(other.abs().max().item(), 1e-3)
        assert (one - other).abs().max().item() <= 1e-10 * scale, index


@pytest.mark.parametrize(("make", "size"), LAYERS)
def test_values_and_first_and_second_derivatives_are_torchs(make, size):
    layer, x = make(), torch.randn(3, 4, *size, requires_grad=True)
    assert_close(derivatives(layer, x, SecondOrder(x)), derivatives(layer, x, None))


@pytest.mark.parametrize(("make", "size"), LAYERS)
def test_a_gradient_of_everything_can_be_differentiated_again(make, size):
    layer, x = make(), torch.randn(2, 4, *size, requires_grad=True)
    leaves = [*layer.parameters(), x]

    def twice(output: Tensor) -> list[Tensor]:
        torch.manual_seed(7)
        loss = (output * torch.randn(output.shape)).tanh().sum()
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        product = sum((gradient * torch.randn_like(gradient)).sum() for gradient in gradients)
        again = torch.autograd.grad(product, leaves, allow_unused=True, materialize_grads=True)
        return [*(gradient.detach() for gradient in gradients), *again]

    with SecondOrder(x):
        ours = layer(x)
    with plain_attention():
        torchs = layer(x)
    assert_close(twice(ours), twice(torchs))


@pytest.mark.parametrize(
    "settings", [{}, {"stride": 2, "padding": 1, "groups": 2}, {"dilation": 2, "padding": 2}], ids=str
)
def test_the_convolutions_derivatives_are_finite_differences(settings):
    conv = nn.Conv2d(2, 2, 2, **settings)
    geometry = ([*conv.stride], [*conv.padding], [*conv.dilation], False, [0, 0], conv.groups)

    def convolve(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return Convolution.apply(x, w, b, geometry, Wanted(), False)

    arguments = (torch.randn(1, 2, 3, 3, requires_grad=True), conv.weight, conv.bias)
    assert torch.autograd.gradcheck(convolve, arguments)
    assert torch.autograd.gradgradcheck(convolve, arguments)


@pytest.mark.parametrize("affine", [True, False])
def test_the_group_norms_derivatives_are_finite_differences(affine):
    x = torch.randn(2, 4, 3, requires_grad=True)
    parameters = [torch.randn(4, requires_grad=True) for _ in range(2)] if affine else [None, None]

    def normalise(x: Tensor, *parameters: Tensor) -> Tensor:
        return GroupNorm.apply(x, *parameters, 2, 1e-5, Wanted())

    assert torch.autograd.gradcheck(normalise, (x, *parameters))
    assert torch.autograd.gradgradcheck(normalise, (x, *parameters), atol=1e-4)


@pytest.mark.parametrize("affine", [True, False])
def test_the_frozen_batch_norms_derivatives_are_finite_differences(affine):
    x, statistics = torch.randn(2, 4, 3, requires_grad=True), (torch.randn(4), torch.rand(4) + 0.5)
    parameters = [torch.randn(4, requires_grad=True) for _ in range(2)] if affine else [None, None]

    def normalise(x: Tensor, *parameters: Tensor) -> Tensor:
        return FrozenBatchNorm.apply(x, *parameters, *statistics, 1e-5, Wanted())

    assert torch.autograd.gradcheck(normalise, (x, *parameters))

    def input_gradient(g: Tensor, w: Tensor | None) -> Tensor:
        y = FrozenBatchNorm.apply(x, w, None, *statistics, 1e-5, Wanted("inputs"))
        return torch.autograd.grad(y, x, g, create_graph=True)[0]

    w = parameters[0]
    assert torch.autograd.gradcheck(input_gradient, (torch.randn(2, 4, 3, requires_grad=True), w))


def test_a_batch_norm_in_training_is_torchs():
    norm, x = nn.BatchNorm2d(4), torch.randn(2, 4, *SIZES[2], requires_grad=True)
    plain = copy.deepcopy(norm)
    with SecondOrder(x):
        y = norm(x)
    assert y.grad_fn.name() == "NativeBatchNormBackward0" and torch.equal(y, plain(x))
    assert torch.equal(norm.running_mean, plain.running_mean) and norm.num_batches_tracked == 1


@pytest.mark.parametrize("affine", [True, False])
def test_the_closed_form_of_the_group_norms_second_derivative_is_finite_differences(affine):
    x = torch.randn(2, 4, 3, requires_grad=True)
    parameters = [torch.randn(4, requires_grad=True), None] if affine else [None, None]
    wanted = Wanted("inputs")

    def input_gradient(x: Tensor, g: Tensor) -> Tensor:
        y = GroupNorm.apply(x, *parameters, 2, 1e-5, wanted)[0]
        return torch.autograd.grad(y, x, g, create_graph=True)[0]

    assert torch.autograd.gradcheck(input_gradient, (x, torch.randn(2, 4, 3, requires_grad=True)))


@pytest.mark.parametrize(
    ("layer", "size", "name"),
    [
        (lambda: nn.Conv1d(4, 2, 3), SIZES[1], "ConvolutionBackward"),
        (lambda: nn.Conv2d(4, 2, 3), SIZES[2], "ConvolutionBackward"),
        (lambda: nn.Conv3d(4, 2, 3), SIZES[3], "ConvolutionBackward"),
        (lambda: nn.GroupNorm(2, 4), SIZES[2], "GroupNormBackward"),
        (lambda: frozen(nn.BatchNorm2d(4)), SIZES[2], "FrozenBatchNormBackward"),
        (nn.ReLU, SIZES[2], "ReLUBackward"),
        (lambda: nn.AvgPool2d(2), SIZES[2], "AveragePoolBackward"),
        (lambda: nn.Linear(4, 5), (), "LinearBackward"),
    ],
)
def test_the_operations_are_ours_inside_and_torchs_afterwards(layer, size, name):
    module, x = layer(), torch.randn(2, 4, *size, requires_grad=True)
    before = _len_torch_function_stack()
    with SecondOrder(x):
        assert module(x).grad_fn.name() == name
    assert module(x).grad_fn.name() != name
    assert _len_torch_function_stack() == before


def test_attention_is_plain_inside_and_what_it_was_afterwards():
    q, backends = torch.randn(1, 2, 4, 8, requires_grad=True), torch.backends.cuda
    flags = (backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.math_sdp_enabled())
    operations = SecondOrder(q)
    with operations:
        inside = functional.scaled_dot_product_attention(q, q, q)
    assert "Flash" not in inside.grad_fn.name() and "Efficient" not in inside.grad_fn.name()
    assert flags == (backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.math_sdp_enabled())


def test_an_error_inside_leaves_nothing_behind():
    before, x = _len_torch_function_stack(), torch.randn(1, 4, 7, requires_grad=True)
    with pytest.raises(RuntimeError, match="channels"), SecondOrder(x):
        nn.Conv1d(3, 2, 3)(x)
    assert _len_torch_function_stack() == before


class Tagged(Tensor):
    """A tensor subclass."""


X2 = (2, 4, 5, 6)


@pytest.mark.parametrize(
    ("module", "make"),
    [
        (lambda: nn.Conv2d(4, 2, 3, padding="same"), lambda: torch.randn(X2)),
        (lambda: nn.Conv2d(4, 2, 3), lambda: torch.randn(X2[1:])),
        (lambda: nn.Conv1d(4, 2, 3), lambda: torch.randn(4, 7)),
        (lambda: nn.Conv2d(4, 2, 3), lambda: torch.randn(X2).as_subclass(Tagged)),
        (lambda: nn.GroupNorm(2, 4), lambda: torch.randn(X2).as_subclass(Tagged)),
        (lambda: nn.GroupNorm(2, 4), lambda: torch.randn(2, 4)),
    ],
    ids=["same", "unbatched", "unbatched-1d", "subclass", "subclass-norm", "no-pixels"],
)
def test_what_is_not_plain_is_left_to_torch(module, make):
    layer, x = module(), make().requires_grad_()
    with SecondOrder(x):
        output = layer(x)
    assert output.grad_fn.name() == layer(x).grad_fn.name() not in ("ConvolutionBackward", "GroupNormBackward")
    assert torch.equal(output, layer(x))


def test_under_autocast_everything_is_left_to_torch():
    x, layer = torch.randn(X2, dtype=torch.float32, requires_grad=True), nn.Conv2d(4, 2, 3, dtype=torch.float32)
    norm = nn.GroupNorm(2, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with SecondOrder(x):
            inside, normalised = layer(x), norm(x)
        assert inside.dtype == torch.bfloat16 and torch.equal(inside, layer(x))
        assert normalised.grad_fn.name() == norm(x).grad_fn.name()


def test_mixed_precision_is_refused_in_torchs_own_words():
    layer, x = nn.Conv2d(4, 2, 3), torch.randn(X2, dtype=torch.float32, requires_grad=True)
    with pytest.raises(RuntimeError) as torchs:
        layer(x)
    with SecondOrder(x), pytest.raises(RuntimeError) as ours:
        layer(x)
    assert str(ours.value) == str(torchs.value)


def test_group_norm_of_mixed_precision_is_torchs():
    norm, x = nn.GroupNorm(2, 4, dtype=torch.float32), torch.randn(X2, dtype=torch.bfloat16, requires_grad=True)
    with SecondOrder(x):
        inside = norm(x)
    assert inside.grad_fn.name() == norm(x).grad_fn.name() and torch.equal(inside, norm(x))


def test_channels_last_gives_the_same_numbers():
    layer, plain = nn.Conv2d(4, 8, 3, padding=1), torch.randn(3, 4, 6, 6)
    last = plain.to(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    plain, last = plain.requires_grad_(), last.requires_grad_()
    assert_close(derivatives(layer, last, SecondOrder(last)), derivatives(layer, plain, None))


def test_a_frozen_layer_passes_gradients_on():
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Softplus(), nn.Conv2d(4, 2, 2))
    for parameter in [*net[0].parameters(), *net[1].parameters()]:
        parameter.requires_grad_(False)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    trained = nn.Module()
    trained.forward, trained.last = net.forward, net[3]
    assert_close(derivatives(trained, x, SecondOrder(x)), derivatives(trained, x, None))


def test_gradients_for_the_batch_alone_compute_none_for_parameters_and_the_other_way_round():
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    layer, operations = nn.Conv2d(4, 2, 3), SecondOrder(x)
    with operations:
        output = layer(x.clone())
    with operations._only("inputs"):
        of_w, of_x = torch.autograd.grad(output.sum(), [layer.weight, x], retain_graph=True, allow_unused=True)
    assert of_w is None and of_x is not None
    with operations.for_parameters(lambda *_: None):
        of_b, of_x = torch.autograd.grad(output.sum(), [layer.bias, x], retain_graph=True, allow_unused=True)
    assert of_b is not None and of_x is None
    of_w, of_x = torch.autograd.grad(output.sum(), [layer.weight, x], allow_unused=True)
    assert of_w is not None and of_x is not None


@pytest.mark.skipif(not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"), reason="torch < 2.8")
def test_each_contribution_to_a_weights_gradient_is_handed_over_at_once():
    x, scale = torch.randn(2, 4, 7, 7, requires_grad=True), torch.randn((), requires_grad=True)
    first, second = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 4, 3)
    leaves = [first.weight, first.bias, second.weight, scale]

    def forward(x: Tensor) -> Tensor:
        # The last kernel is computed, so that its gradient has to go on to the leaf that it is computed from.
        return functional.conv2d(second(first(x).tanh()).tanh(), second.weight[:, :4] * scale).tanh()

    def product(of_x: Tensor) -> Tensor:
        return (of_x * torch.arange(of_x.numel()).view_as(of_x)).sum()

    (of_x,) = torch.autograd.grad(forward(x).sum(), x, create_graph=True)
    expected = torch.autograd.grad(product(of_x), leaves)
    taken: dict[int, list[Tensor]] = {}
    operations = SecondOrder(x)
    with operations:
        output = forward(x.clone())
    of_x = operations.gradient_of_batch(output)
    with operations.for_parameters(lambda weight, gradient: taken.setdefault(id(weight), []).append(gradient)):
        passed_on = torch.autograd.grad(product(of_x), leaves, allow_unused=True)
    assert {key: len(gradients) for key, gradients in taken.items()} == {id(first.weight): 2, id(second.weight): 2}
    got = [sum(taken.get(id(leaf), [])) + (0 if one is None else one) for leaf, one in strict_zip(leaves, passed_on)]
    assert passed_on[0] is None
    assert_close(got, expected)


def test_the_batch_is_spared_in_the_first_layer_only():
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    net, operations = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 2)), SecondOrder(x)
    with operations:
        ours = net(x.clone()).tanh().sum()
    taken = PrecomputedGradient(torch.zeros(()))
    with operations.for_parameters(taken.add):
        taken.differentiate([ours], list(net.parameters()))
    got = [taken.gradients[id(parameter)][1] for parameter in net.parameters()]
    assert_close(got, torch.autograd.grad(net(x).tanh().sum(), list(net.parameters())))


def test_everything_is_wanted_again_after_an_error():
    x = torch.randn(2, 4, 5, requires_grad=True)
    operations = SecondOrder(x)
    with pytest.raises(UnsupportedLoss):
        operations.gradient_of_batch(torch.zeros(2))
    assert operations._wanted.gradients == "everything"
    with pytest.raises(ZeroDivisionError), operations.for_parameters(lambda *_: None):
        assert operations._wanted.gradients == "parameters"
        raise ZeroDivisionError
    assert operations._wanted.gradients == "everything"
