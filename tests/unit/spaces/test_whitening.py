"""ZCA whitening: fitted as the hosts' kornia does, and undone exactly."""

import dataclasses

import pytest
import torch

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import Normalization, UndecidedZca, Whitening, ZcaWhitening
from guard_plugin.versions import strict_zip


@pytest.fixture(scope="module")
def pixels():
    """Correlated images: smooth ones, plus noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1500, 2, 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (5, 4), mode="bilinear")
    return (0.9 * smooth + 0.1 * torch.rand(1500, 2, 5, 4, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def whitening(pixels):
    return ZcaWhitening(eps=0.1).fitted(pixels)


def test_it_is_kornias(pixels, whitening):
    zca = pytest.importorskip("kornia").enhance.ZCAWhitening(eps=0.1, compute_inv=True)
    zca.fit(pixels)
    torch.testing.assert_close(whitening.to_input(pixels), zca(pixels), rtol=0, atol=1e-5)
    whitened = torch.randn(7, 2, 5, 4)
    torch.testing.assert_close(whitening.to_pixels(whitened), zca.inverse_transform(whitened), rtol=0, atol=1e-5)


def test_kornia_agrees_with_fewer_images_than_pixels(pixels):
    """A covariance of low rank: eigenvalues of exactly 0, up to rounding."""
    zca = pytest.importorskip("kornia").enhance.ZCAWhitening(eps=0.1, compute_inv=True).fit(pixels[:9])
    torch.testing.assert_close(ZcaWhitening().fitted(pixels[:9]).to_input(pixels), zca(pixels), rtol=0, atol=1e-4)


def test_the_whitened_covariance_is_s_over_s_plus_eps(pixels, whitening):
    def eigenvalues(images):
        return torch.linalg.eigvalsh(torch.cov(images.flatten(1).double().T))

    before, whitened = eigenvalues(pixels), whitening.to_input(pixels)
    torch.testing.assert_close(eigenvalues(whitened), before / (before + 0.1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whitened.mean(0), torch.zeros(2, 5, 4), rtol=0, atol=1e-5)
    # The same eigenvectors: a ZCA is the symmetric root, not another rotation of it.
    torch.testing.assert_close(whitening.matrix, whitening.matrix.T)
    _, vectors = torch.linalg.eigh(torch.cov(pixels.flatten(1).double().T))
    products = vectors.T @ torch.cov(whitened.flatten(1).double().T) @ vectors
    torch.testing.assert_close(products, torch.diag(before / (before + 0.1)), rtol=0, atol=1e-5)


def test_it_is_undone(pixels, whitening):
    torch.testing.assert_close(whitening.to_pixels(whitening.to_input(pixels)), pixels, rtol=0, atol=1e-5)
    identity = torch.eye(40)
    torch.testing.assert_close(whitening.matrix @ whitening.inverse, identity, rtol=0, atol=1e-5)


def test_gradients_flow_through_it(whitening):
    pixels = torch.rand(2, 2, 5, 4, requires_grad=True)
    direction = torch.randn(2, 2, 5, 4)
    (gradient,) = torch.autograd.grad((whitening.to_input(pixels) * direction).sum(), pixels)
    torch.testing.assert_close(gradient.flatten(1), direction.flatten(1) @ whitening.matrix.T)
    assert not list(whitening.parameters()) and not any(buffer.requires_grad for buffer in whitening.buffers())


def test_the_fit_is_deterministic_and_the_order_of_the_images_hardly_matters(pixels, whitening):
    again = ZcaWhitening(eps=0.1).fitted(pixels.clone())
    assert all(torch.equal(one, other) for one, other in strict_zip(again.buffers(), whitening.buffers()))
    other = ZcaWhitening(eps=0.1).fitted(pixels.flip(0))
    torch.testing.assert_close(other.matrix, whitening.matrix, rtol=1e-6, atol=1e-7)


def test_another_eps_is_another_whitening(pixels, whitening):
    assert not torch.allclose(ZcaWhitening(eps=0.2).fitted(pixels).matrix, whitening.matrix)
    assert (whitening.describe(), ZcaWhitening(0.2).describe()) == (
        {"name": "zca", "eps": 0.1},
        {"name": "zca", "eps": 0.2},
    )


def test_unfitted_it_says_so(pixels, whitening):
    distilled = DistilledSet(whitening.to_input(pixels[:4]), torch.arange(4), 4, ZcaWhitening())
    with pytest.raises(UnusableInput, match=r"not known before it is fitted.*fitted\(training_pixels\)"):
        distilled.pixels()
    with pytest.raises(UnusableInput, match="not known before it is fitted"):
        distilled.normalization.to_input(pixels)
    fitted = dataclasses.replace(distilled, normalization=distilled.normalization.fitted(pixels))
    torch.testing.assert_close(fitted.pixels(), pixels[:4], rtol=0, atol=1e-5)


def test_what_cannot_be_whitened_is_refused(pixels, whitening):
    with pytest.raises(UnusableInput, match=r"shape \(n >= 2.*got shape \(1, 2, 5, 4\)"):
        ZcaWhitening().fitted(pixels[:1])
    with pytest.raises(UnusableInput, match="eps > 0"):
        ZcaWhitening(eps=0.0)
    with pytest.raises(UnusableInput, match=r"shape \(n, 2, 5, 4\).*got \(3, 2, 4, 5\)"):
        whitening.to_input(torch.rand(3, 2, 4, 5))
    with pytest.raises(UnusableInput, match="matrices of shape"):
        Whitening(torch.zeros(2, 5, 4), torch.zeros(3, 3), torch.zeros(3, 3), eps=0.1)


def test_what_the_user_says_decides():
    normalization = Normalization((0.5,), (0.2,))
    undecided = UndecidedZca(normalization, "the folder does not tell")
    assert undecided.decided(zca=True) == ZcaWhitening()
    with pytest.raises(UnusableInput, match="got --zca, but the host did not whiten"):
        normalization.decided(zca=True)
    assert undecided.decided(zca=False) is normalization.decided(zca=False) is normalization
    assert ZcaWhitening(0.3).decided(zca=True) == ZcaWhitening(0.3)
    with pytest.raises(UnusableInput, match="got --no-zca"):
        ZcaWhitening().decided(zca=False)
    for ask in (undecided.describe, lambda: undecided.to_input(torch.rand(1, 1, 2, 2))):
        with pytest.raises(UnusableInput, match="the folder does not tell: say whether"):
            ask()
