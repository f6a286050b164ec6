"""The bound's terms and verdicts where they are known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard_plugin.diagnostics import Ascent, bound, lipschitz_of_head
from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.penalties.per_example import Losses, cross_entropy
from guard_plugin.spaces import Normalization
from guard_plugin.versions import strict_zip

SPACE = Normalization((0.5,), (0.25,))


def regression(classes: int = 3) -> PixelModel:
    """Softmax regression: its penultimate features are the inputs, and the adversarial loss is convex in them."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, classes))
    return PixelModel(network, SPACE).double().eval()


def data(n: int = 12) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 2, 2, dtype=torch.float64), torch.arange(n) % 3


def distilled(classes: int = 3, per_class: int = 2, labels: Tensor | None = None) -> DistilledSet:
    images = torch.randn(classes * per_class, 1, 2, 2)
    return DistilledSet(images, torch.arange(classes * per_class) % 3 if labels is None else labels, classes, SPACE)


def test_every_term_agrees_with_its_definition():
    model, (pixels, labels), images = regression(), data(), distilled()
    rho = 0.3
    report = bound(model, pixels, labels, images, rho=rho, tol=1e-9)
    linear = model.network[1]
    for one in report.classes:
        c = one.label
        real = SPACE.to_input(pixels[labels == c]).flatten(1).requires_grad_()
        made = images.images[images.labels == c].double().flatten(1)
        loss = functional.cross_entropy(linear(real), torch.full((len(real),), c), reduction="none")
        gradients = torch.autograd.grad(loss.sum(), real)[0]
        w = linear.weight.detach()
        tops = [
            torch.linalg.eigvalsh(w.T @ (torch.diag(p) - torch.outer(p, p)) @ w)[-1]
            for p in linear(real).softmax(1).detach()
        ]
        mean = real.detach().mean(0)
        assert (one.n_real, one.n_distilled, one.not_converged) == (4, 2, 0)
        assert one.loss == pytest.approx(loss.mean().item(), rel=1e-9)
        assert one.gradient_term == pytest.approx(rho * gradients.norm(dim=1).mean().item(), rel=1e-9)
        assert one.curvature_term == pytest.approx(rho**2 / 2 * torch.stack(tops).mean().item(), rel=1e-9)
        assert one.sigma == pytest.approx((made - mean).norm(dim=1).mean().item(), rel=1e-6)
        assert one.distance_of_means == pytest.approx((made.mean(0) - mean).norm().item(), rel=1e-6)
        assert one.lipschitz == lipschitz_of_head(linear, c)


def test_the_right_sides_are_the_sums_of_the_terms():
    (one, *_) = bound(regression(), *data(), distilled(), rho=0.3).classes
    published = one.loss + 0.3**2 / 2 * one.curvature + one.lipschitz * one.sigma
    assert one.right == pytest.approx(published, rel=1e-9)
    assert one.right_with_gradient == pytest.approx(published + 0.3 * one.gradient_norm, rel=1e-9)
    quadratic = one.loss + 0.3 * one.gradient_norm + 0.3**2 / 2 * one.curvature
    assert one.quadratic == pytest.approx(quadratic, rel=1e-9)


def test_each_distilled_image_is_compared_at_its_own_distance():
    # A flat loss, whose gradient term alone is larger than L sigma of the nearer images.
    model, (pixels, labels), images = regression(), data(), distilled(per_class=10)
    with torch.no_grad():
        model.network[1].weight.mul_(0.1)
    rho = 3.0
    report = bound(model, pixels, labels, images, rho=rho)
    for one in report.classes:
        c = one.label
        mean = SPACE.to_input(pixels[labels == c]).flatten(1).mean(0)
        made = images.images[images.labels == c].double().flatten(1)
        losses = Losses(model.network, torch.full((10,), c), cross_entropy)
        left = losses(Ascent()(losses, made.view(10, 1, 2, 2), rho, torch.arange(10)))
        right = one.loss + one.curvature_term + one.lipschitz * (made - mean).norm(dim=1)
        assert one.images_held == int((left <= right).sum())
        assert one.images_held_with_gradient == int((left <= right + one.gradient_term).sum())
    assert 0 < sum(one.images_held for one in report.classes) < 30


def test_softmax_regression_keeps_the_bound_with_gradient_for_a_small_ball():
    report = bound(regression(), *data(), distilled(), rho=1e-3)
    assert all(one.images_held_with_gradient == one.n_distilled for one in report.classes)


def test_a_steep_straight_loss_breaks_the_bound_without_gradient_but_not_the_one_with_it():
    # Every image is far on the wrong side, where the loss is linear; distilled images are the real ones, so sigma is 0.
    model = PixelModel(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), Normalization((0.0,), (1.0,))).double().eval()
    with torch.no_grad():
        model.network[1].weight.copy_(torch.tensor([[-100.0], [100.0]]))
        model.network[1].bias.zero_()
    pixels, labels = torch.ones(2, 1, 1, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    same = DistilledSet(torch.ones(1, 1, 1, 1), torch.tensor([0]), 2, Normalization((0.0,), (1.0,)))
    (one,) = bound(model, pixels, labels, same, rho=0.1).classes
    assert (one.sigma, one.adversarial_loss) == pytest.approx((0.0, 200 * 1.1))
    verdicts = one.to_json()
    assert (verdicts["held"], verdicts["held_with_gradient"]) == (False, True)
    assert (one.images_held, one.images_held_with_gradient) == (0, 1)


def test_where_the_quadratic_model_fails_on_real_images_it_says_so():
    # Flat at the image, steep far from it: neither gradient nor curvature there tells what the ball holds.
    model = PixelModel(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), Normalization((0.0,), (1.0,))).double().eval()
    with torch.no_grad():
        model.network[1].weight.copy_(torch.tensor([[-20.0], [20.0]]))
        model.network[1].bias.copy_(torch.tensor([20.0, -20.0]))
    pixels, labels = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    images = DistilledSet(torch.zeros(1, 1, 1, 1), torch.tensor([0]), 2, Normalization((0.0,), (1.0,)))
    (one,) = bound(model, pixels, labels, images, rho=3.0).classes
    assert one.adversarial_loss_real == pytest.approx(80.0, rel=1e-6)
    assert one.to_json()["quadratic_model_held"] is False


class Hill(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x.flatten(1).square()


def test_a_loss_that_is_concave_at_the_image_has_no_curvature_term():
    model = PixelModel(nn.Sequential(Hill(), nn.Linear(1, 2)), Normalization((0.0,), (1.0,))).double().eval()
    with torch.no_grad():
        model.network[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model.network[1].bias.zero_()
    pixels, labels = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    images = DistilledSet(torch.zeros(1, 1, 1, 1), torch.tensor([0]), 2, Normalization((0.0,), (1.0,)))
    (one,) = bound(model, pixels, labels, images, rho=0.1).classes
    assert (one.curvature, one.curvature_term) == pytest.approx((-1.0, 0.0))  # sigmoid(0) times -2


def test_the_adversarial_loss_is_the_one_of_the_given_attack():
    nothing = lambda losses, inputs, rho, indices: inputs  # noqa: E731
    model, images = regression(), distilled()
    report = bound(model, *data(), images, rho=0.3, attack=nothing)
    for one in report.classes:
        made = images.images[images.labels == one.label].double()
        clean = functional.cross_entropy(model.network(made), torch.full((len(made),), one.label))
        assert one.adversarial_loss == pytest.approx(clean.item(), rel=1e-6)
        assert one.adversarial_loss_real == pytest.approx(one.loss, rel=1e-9)


def test_an_attack_that_leaves_its_ball_is_an_error():
    far = lambda losses, inputs, rho, indices: inputs + rho  # noqa: E731
    with pytest.raises(GuardError, match="left its ball"):
        bound(regression(), *data(), distilled(), rho=0.3, attack=far)


def test_other_features_have_the_largest_slope_between_two_images_as_lipschitz_constant():
    model, (pixels, labels), images = regression(), data(), distilled()
    report = bound(model, pixels, labels, images, rho=0.3, features=lambda x: 2 * x)
    (exact,) = {bound(model, pixels, labels, images, rho=0.3).lipschitz}
    assert (report.lipschitz, exact) == ("largest slope", "exact")
    one = report.classes[0]
    x = torch.cat([SPACE.to_input(pixels[labels == 0]), images.images[images.labels == 0].double()])
    losses = functional.cross_entropy(model.network(x), torch.zeros(len(x), dtype=torch.int64), reduction="none")
    slopes = [abs(losses[i] - losses[j]).item() / (2 * (x[i] - x[j]).norm().item()) for i in range(6) for j in range(i)]
    assert one.lipschitz == pytest.approx(max(slopes), rel=1e-5)


def test_in_pixel_space_the_ball_is_of_pixels():
    # rho in input space is 0.25 rho in pixels, and the same balls have the same losses.
    model, (pixels, labels), images = regression(), data(), distilled()
    a = bound(model, pixels, labels, images, rho=0.4, space="input", attack=Ascent(steps=100)).classes[0]
    b = bound(model, pixels, labels, images, rho=0.1, space="pixel", attack=Ascent(steps=100)).classes[0]
    assert b.adversarial_loss == pytest.approx(a.adversarial_loss, rel=1e-4)
    assert b.curvature_term == pytest.approx(a.curvature_term, rel=1e-4)


def test_distilled_images_outside_the_pixel_range_are_not_clipped():
    model, images = regression(), distilled()
    outside = DistilledSet(images.images + 100, images.labels, 3, SPACE)
    (one, *_) = bound(model, *data(), outside, rho=0.3).classes
    assert one.sigma > 150


def test_soft_labels_count_as_their_likeliest_class():
    hard, soft = distilled(), None
    soft = DistilledSet(hard.images, functional.one_hot(hard.labels, 3) * 0.7 + 0.1, 3, SPACE)
    model, real = regression(), data()
    assert bound(model, *real, soft, rho=0.3) == bound(model, *real, hard, rho=0.3)


def test_a_class_with_images_of_one_kind_only_is_named_as_missing():
    report = bound(regression(), *data(), distilled(labels=torch.tensor([0, 1, 0, 1, 0, 1])), rho=0.3)
    assert ([one.label for one in report.classes], report.missing) == ([0, 1], (2,))


def test_results_do_not_depend_on_the_batch_size():
    model, real, images = regression(), data(), distilled()
    a, b = (bound(model, *real, images, rho=0.3, batch_size=size).classes for size in (1, 7))
    for one, other in strict_zip(a, b):
        assert one.to_json() == pytest.approx(other.to_json(), rel=1e-9)


def test_the_report_is_json_with_its_notes():
    report = json.loads(json.dumps(bound(regression(), *data(), distilled(), rho=0.3).to_json(), allow_nan=False))
    assert report["rho"] == 0.3
    assert any("lower estimate" in note for note in report["notes"])


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_a_rho_that_is_no_radius_is_refused(rho):
    with pytest.raises(UnusableInput, match="rho"):
        bound(regression(), *data(), distilled(), rho=rho)


def test_distilled_images_of_another_size_are_refused():
    other = DistilledSet(torch.randn(3, 1, 4, 4), torch.tensor([0, 1, 2]), 3, SPACE)
    with pytest.raises(UnusableInput, match="distilled images of shape"):
        bound(regression(), *data(), other, rho=0.3)


def test_sets_without_a_class_in_common_are_refused():
    pixels, _ = data()
    with pytest.raises(UnusableInput, match="in common"):
        bound(regression(), pixels, torch.full((12,), 2), distilled(labels=torch.zeros(6, dtype=torch.int64)), rho=0.3)
