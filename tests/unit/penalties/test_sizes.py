"""Settings at another size: the penalty of an enlarged image is that of the image."""

import pytest
import torch
from torch import nn

import guard_plugin
from guard_plugin.errors import UnusableInput
from guard_plugin.penalties import curvature_penalty, scale_h, scale_strength

SMALL, LARGE = (1, 8, 8), (1, 32, 32)


@pytest.fixture
def network():
    """A network for 8x8 images, in float64."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()


def enlarged(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_a_network_that_averages_an_enlarged_image_has_the_same_penalty(network, form):
    x, y = torch.randn(5, *SMALL, dtype=torch.float64), torch.arange(5) % 3
    averaging = nn.Sequential(nn.AvgPool2d(4), network)
    assert torch.equal(averaging(enlarged(x)), network(x)) or torch.allclose(averaging(enlarged(x)), network(x))
    h, strength = 0.3, 2.0
    small = curvature_penalty(network, x, y, h=h, strength=strength, form=form)
    carried = {"h": scale_h(h, from_shape=SMALL, to_shape=LARGE), "form": form}
    assert carried["h"] == pytest.approx(4 * h)
    by_rule = scale_strength(strength, from_shape=SMALL, to_shape=LARGE) if form == "gradient" else strength
    large = curvature_penalty(averaging, enlarged(x), y, strength=by_rule, **carried)
    assert large.item() == pytest.approx(small.item(), rel=1e-13)
    if form == "gradient":
        assert by_rule == 16 * strength
        same = curvature_penalty(averaging, enlarged(x), y, strength=strength, **carried)
        assert same.item() == pytest.approx(small.item() / 16, rel=1e-13)


@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_standardisation_is_part_of_the_input_space(network, form):
    """With pixels divided by a std, the same penalty takes h / std, and std^2 times the gradient form's strength."""
    std, x, y = 0.25, torch.rand(5, *SMALL, dtype=torch.float64), torch.arange(5) % 3

    class Pixels(nn.Module):
        def forward(self, pixels):
            return network(pixels / std)

    in_pixels = curvature_penalty(Pixels(), x, y, h=0.1, strength=2.0, form=form)
    strength = 2.0 / std**2 if form == "gradient" else 2.0
    standardised = curvature_penalty(network, x / std, y, h=0.1 / std, strength=strength, form=form)
    assert standardised.item() == pytest.approx(in_pixels.item(), rel=1e-12)


def test_the_papers_h_per_value():
    assert guard_plugin.scale_h(3.0, from_shape=(3, 224, 224), to_shape=(3, 32, 32)) == pytest.approx(3.0 / 7)
    assert guard_plugin.scale_strength(100.0, from_shape=(3, 224, 224), to_shape=(3, 32, 32)) == pytest.approx(100 / 49)


@pytest.mark.parametrize("scale", [scale_h, scale_strength])
@pytest.mark.parametrize(("value", "shape"), [(-1.0, SMALL), (1.0, (3, 0)), (1.0, ()), (float("nan"), SMALL)])
def test_what_is_no_setting_or_no_shape_is_refused(scale, value, shape):
    with pytest.raises(UnusableInput, match="expected"):
        scale(value, from_shape=shape, to_shape=LARGE)
