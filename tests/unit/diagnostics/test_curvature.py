"""Curvature of the loss against closed forms and torch.autograd.functional.hessian, in float64."""

import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard_plugin.diagnostics import curvature_at, input_curvature
from guard_plugin.errors import UnusableInput
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.penalties import curvature_penalty
from guard_plugin.spaces import Normalization
from guard_plugin.versions import strict_zip

NORMALIZATION = Normalization((0.4, 0.5), (0.25, 0.25))


class Quadratic(nn.Module):
    """l(x) = x A x / 2 + b x: the Hessian is A's symmetric part, everywhere."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(torch.randn(len(a), dtype=a.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * ((x @ self.a) * x).sum(1, keepdim=True) + (x @ self.b)[:, None]


def first_column(output: Tensor, _: Tensor) -> Tensor:
    return output[:, 0]


def smooth_images(n: int = 5) -> tuple[nn.Module, Tensor, Tensor]:
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4),
    )  # fmt: skip
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    model = PixelModel(network, NORMALIZATION).double().eval()
    return model, torch.rand(n, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 2, 2])[:n]


def full_hessian(network: nn.Module, x: Tensor, label: Tensor) -> Tensor:
    def loss(flat: Tensor) -> Tensor:
        return functional.cross_entropy(network(flat.view(1, *x.shape)), label[None])

    return torch.autograd.functional.hessian(loss, x.flatten())


def by_the_full_hessian(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([torch.linalg.eigvalsh(full_hessian(network, x, y))[-1] for x, y in strict_zip(inputs, labels)])


def test_smooth_networks_agree_with_the_full_hessian():
    model, pixels, labels = smooth_images()
    report = input_curvature(model, pixels, labels, h=0.1, tol=1e-9, steps=50)
    expected = by_the_full_hessian(model.network, NORMALIZATION.to_input(pixels), labels)
    assert report.converged.all()
    torch.testing.assert_close(report.largest, expected, rtol=1e-8, atol=1e-12)


def test_pixel_space_agrees_with_the_full_hessian_of_the_whole_model():
    model, pixels, labels = smooth_images()
    report = input_curvature(model, pixels, labels, h=0.1, tol=1e-9, steps=50, space="pixel")
    torch.testing.assert_close(report.largest, by_the_full_hessian(model, pixels, labels), rtol=1e-8, atol=1e-12)


def test_pixel_space_has_the_curvature_of_input_space_over_the_squared_std():
    model, pixels, labels = smooth_images()
    a, b = (input_curvature(model, pixels, labels, h=0.1, tol=1e-9, space=space) for space in ("pixel", "input"))
    torch.testing.assert_close(a.largest, b.largest / 0.25**2, rtol=1e-8, atol=0)


def test_softmax_regression_agrees_with_its_closed_form():
    linear = nn.Linear(9, 4).double().eval()
    x, y = torch.randn(6, 9, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    p = linear(x).softmax(1).detach()
    w = linear.weight.detach()
    closed = torch.stack([w.T @ (torch.diag(q) - torch.outer(q, q)) @ w for q in p])
    report = curvature_at(linear, x, y, h=0.1, tol=1e-9)
    torch.testing.assert_close(report.largest, torch.linalg.eigvalsh(closed)[:, -1], rtol=1e-9, atol=0)


def test_a_relu_networks_curvature_is_that_of_the_softmax_on_its_linear_piece():
    network = nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 3)).double().eval()
    x = torch.randn(4, 7, dtype=torch.float64)
    slopes = torch.stack([torch.autograd.functional.jacobian(lambda v: network(v[None])[0], one) for one in x])
    p = network(x).softmax(1).detach()
    closed = torch.stack([j.T @ (torch.diag(q) - torch.outer(q, q)) @ j for j, q in strict_zip(slopes, p)])
    report = curvature_at(network, x, torch.tensor([0, 1, 2, 0]), h=0.1, tol=1e-9)
    torch.testing.assert_close(report.largest, torch.linalg.eigvalsh(closed)[:, -1], rtol=1e-9, atol=0)
    assert int(report.steps.max()) <= 3  # rank classes - 1, and one to see that nothing is left


def test_the_surrogate_is_what_the_penalty_squares():
    model, pixels, labels = smooth_images()
    report = input_curvature(model, pixels, labels, h=0.7)
    penalty = curvature_penalty(model.network, NORMALIZATION.to_input(pixels), labels, h=0.7, strength=1.0)
    assert (0.7 * report.surrogate).square().mean().item() == pytest.approx(penalty.item(), rel=1e-12)


def test_on_a_quadratic_with_gradient_along_the_top_eigenvector_surrogate_and_eigenvalue_agree():
    network = Quadratic(torch.diag(torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64)))
    nn.init.zeros_(network.b)
    x = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    report = curvature_at(network.eval(), x, torch.zeros(1), h=0.3, loss_fn=first_column)
    assert (report.largest.item(), report.surrogate.item()) == pytest.approx((5.0, 5.0), rel=1e-9)
    assert report.cosine.item() == pytest.approx(1.0, rel=1e-9)


def test_a_gradient_across_the_top_eigenvector_has_cosine_zero_and_its_own_curvature():
    network = Quadratic(torch.diag(torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64)))
    nn.init.zeros_(network.b)
    x = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    report = curvature_at(network.eval(), x, torch.zeros(1), h=0.3, tol=1e-9, loss_fn=first_column)
    assert report.surrogate.item() == pytest.approx(2.0, rel=1e-9)
    assert report.cosine.item() == pytest.approx(0.0, abs=1e-6)


def test_the_cosine_is_that_with_the_full_hessians_eigenvector_without_sign():
    model, pixels, labels = smooth_images()
    inputs = NORMALIZATION.to_input(pixels)
    report = input_curvature(model, pixels, labels, h=0.1, tol=1e-9)
    for x, y, cosine in strict_zip(inputs, labels, report.cosine):
        leaf = x[None].clone().requires_grad_()
        (g,) = torch.autograd.grad(functional.cross_entropy(model.network(leaf), y[None]), leaf)
        top = torch.linalg.eigh(full_hessian(model.network, x, y)).eigenvectors[:, -1]
        assert cosine.item() == pytest.approx(abs(g.flatten() @ top).item() / g.norm().item(), rel=1e-6)


def test_losses_and_gradient_norms_are_autograds():
    model, pixels, labels = smooth_images()
    leaf = pixels.clone().requires_grad_()
    losses = functional.cross_entropy(model(leaf), labels, reduction="none")
    (gradients,) = torch.autograd.grad(losses.sum(), leaf)
    report = input_curvature(model, pixels, labels, h=0.1, space="pixel")
    torch.testing.assert_close(report.loss, losses.detach())
    torch.testing.assert_close(report.gradient_norm, gradients.flatten(1).norm(dim=1))


def test_a_negative_eigenvalue_of_larger_magnitude_is_not_taken():
    network = Quadratic(torch.diag(torch.tensor([-8.0, 1.5, 0.0], dtype=torch.float64))).eval()
    report = curvature_at(
        network, torch.randn(2, 3, dtype=torch.float64), torch.zeros(2), h=0.1, tol=1e-9, loss_fn=first_column
    )
    assert report.largest.tolist() == pytest.approx([1.5, 1.5], rel=1e-9)


def test_results_do_not_depend_on_the_batch_size():
    model, pixels, labels = smooth_images()
    one, all_at_once = (input_curvature(model, pixels, labels, h=0.5, batch_size=size) for size in (1, 5))
    assert torch.equal(one.steps, all_at_once.steps)
    for name in ("largest", "residual", "surrogate", "cosine", "loss", "gradient_norm"):
        torch.testing.assert_close(getattr(one, name), getattr(all_at_once, name), rtol=1e-7, atol=1e-10)


def test_float32_agrees_with_float64():
    model, pixels, labels = smooth_images()
    double = input_curvature(model, pixels, labels, h=0.5, tol=1e-4)
    single = input_curvature(model.float(), pixels.float(), labels, h=0.5, tol=1e-4)
    assert single.largest.dtype == torch.float32
    torch.testing.assert_close(single.largest.double(), double.largest, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(single.surrogate.double(), double.surrogate, rtol=1e-3, atol=1e-5)


def test_an_example_without_gradient_has_no_surrogate_and_no_cosine_but_its_curvature():
    network = Quadratic(torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)))
    nn.init.zeros_(network.b)
    report = curvature_at(
        network.eval(), torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1), h=0.1, loss_fn=first_column
    )
    assert (report.gradient_norm.item(), report.surrogate.item()) == (0.0, 0.0)
    assert math.isnan(report.cosine.item())
    assert report.largest.item() == pytest.approx(3.0, rel=1e-6)


def test_a_loss_that_is_linear_in_the_inputs_has_no_curvature():
    report = curvature_at(nn.Linear(3, 1).eval(), torch.randn(2, 3), torch.zeros(2), h=0.1, loss_fn=first_column)
    assert report.largest.tolist() == [0.0, 0.0]
    assert report.converged.all()
    assert report.cosine.isnan().all()


def test_a_linear_loss_of_frozen_weights_has_no_curvature_either():
    network = nn.Linear(3, 1).eval().requires_grad_(False)
    report = curvature_at(network, torch.randn(2, 3), torch.zeros(2), h=0.1, loss_fn=first_column)
    assert report.largest.tolist() == [0.0, 0.0]


def test_too_few_steps_are_reported_as_not_converged():
    model, pixels, labels = smooth_images()
    report = input_curvature(model, pixels, labels, h=0.1, steps=1, tol=1e-6)
    assert not report.converged.any()
    assert (report.residual > 0).all()


def test_the_values_are_json_with_null_for_an_undefined_cosine():
    report = curvature_at(nn.Linear(3, 1).eval(), torch.randn(1, 3), torch.zeros(1), h=0.1, loss_fn=first_column)
    values = json.loads(json.dumps(report.per_example(), allow_nan=False))
    assert values["cosine"] == [None]
    assert values["converged"] == [True]


def test_the_model_and_the_random_stream_are_left_as_they_were():
    model, pixels, labels = smooth_images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    input_curvature(model, pixels, labels, h=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_works_where_the_caller_has_switched_gradients_off():
    model, pixels, labels = smooth_images()
    with torch.no_grad():
        assert (input_curvature(model, pixels, labels, h=0.1).largest != 0).all()


def test_a_model_in_training_mode_is_refused_before_any_pass():
    model, pixels, labels = smooth_images()
    model.network[1].train()
    with pytest.raises(UnusableInput, match="training mode"):
        input_curvature(model, pixels, labels, h=0.1)
    assert model.network[1].num_batches_tracked == 0


@pytest.mark.parametrize("labels", [torch.tensor([0, 4, 0, 0, 0]), torch.tensor([0, -1, 0, 0, 0]), torch.zeros(5)])
def test_wrong_labels_are_refused(labels):
    model, pixels, _ = smooth_images()
    with pytest.raises(UnusableInput, match="labels"):
        input_curvature(model, pixels, labels, h=0.1)


@pytest.mark.parametrize("h", [0.0, -1.0, math.nan, math.inf])
def test_an_h_that_is_no_length_is_refused(h):
    model, pixels, labels = smooth_images()
    with pytest.raises(UnusableInput, match="h, the L2 length"):
        input_curvature(model, pixels, labels, h=h)


@pytest.mark.parametrize("setting", [{"steps": 0}, {"batch_size": 0}, {"tol": 0.0}, {"space": "pixels"}])
def test_settings_out_of_range_are_refused(setting):
    model, pixels, labels = smooth_images()
    with pytest.raises(UnusableInput, match=f"expected .*{next(iter(setting))}"):
        input_curvature(model, pixels, labels, h=0.1, **setting)


def test_a_network_that_does_not_tell_its_input_space_is_refused_there():
    model, pixels, labels = smooth_images()
    with pytest.raises(UnusableInput, match="PixelModel"):
        input_curvature(model.network, pixels, labels, h=0.1)


def test_a_network_that_detaches_its_inputs_is_refused():
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)

    with pytest.raises(UnusableInput, match="no gradient"):
        curvature_at(Detached().eval(), torch.rand(2, 3), torch.tensor([0, 1]), h=0.1)


def test_a_batch_norm_that_couples_the_examples_is_refused():
    model, pixels, labels = smooth_images()
    model.network[1] = nn.BatchNorm2d(3, track_running_stats=False).double().eval()
    with pytest.raises(UnusableInput, match="track_running_stats"):
        input_curvature(model, pixels, labels, h=0.1)


def test_a_diverged_network_is_refused():
    network = nn.Linear(3, 2).eval()
    nn.init.constant_(network.weight, math.nan)
    with pytest.raises(UnusableInput, match="finite"):
        curvature_at(network, torch.rand(2, 3), torch.tensor([0, 1]), h=0.1)


def test_converged_is_relative_to_the_eigenvalue_and_not_to_a_larger_negative_one():
    diagonal = torch.zeros(64, dtype=torch.float64)
    diagonal[0], diagonal[1] = -1.0, 0.003
    x = torch.zeros(1, 64, dtype=torch.float64)
    network = Quadratic(torch.diag(diagonal)).eval()
    report = curvature_at(network, x, torch.zeros(1), h=0.1, steps=2, loss_fn=first_column)
    assert report.residual.item() < 1e-3  # of ||H||, which is 1
    assert not report.converged


def test_hessian_products_that_are_not_finite_are_refused():
    network = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1)).eval()
    with torch.no_grad():
        network[0].weight.fill_(1e25).mul_(torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]))
        network[0].bias.zero_()
    with pytest.raises(UnusableInput, match="finite products"):
        curvature_at(network, torch.zeros(2, 3), torch.zeros(2), h=0.1, loss_fn=first_column)


def test_an_attention_network_agrees_with_its_closed_form_written_out():
    class Attention(nn.Module):
        def __init__(self, attend) -> None:
            super().__init__()
            self.attend = attend

        def forward(self, x: Tensor) -> Tensor:
            return self.attend(x, x.flip(1), x.square())[:, 0]

    def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v

    x, y = torch.rand(3, 5, 4), torch.tensor([0, 1, 3])
    reports = [
        curvature_at(Attention(attend).eval(), x, y, h=0.1)
        for attend in (
            lambda *qkv: functional.scaled_dot_product_attention(*(t[:, None] for t in qkv))[:, 0],
            written_out,
        )
    ]
    torch.testing.assert_close(reports[0].largest, reports[1].largest, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(reports[0].surrogate, reports[1].surrogate, rtol=1e-3, atol=1e-6)


def test_inputs_of_one_number_each_need_no_axis_of_their_own():
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1.5 * x[:, None].square()

    report = curvature_at(Square().eval(), torch.tensor([1.0, 2.0]), torch.zeros(2), h=0.1, loss_fn=first_column)
    assert report.largest.tolist() == pytest.approx([3.0, 3.0])
    assert report.surrogate.tolist() == pytest.approx([3.0, 3.0], rel=1e-4)
    assert report.gradient_norm.tolist() == pytest.approx([3.0, 6.0])
