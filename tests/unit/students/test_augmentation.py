"""Each kind of DSA does what its definition says, with parameters of its own for every image."""

import math

import pytest
import torch
from torch.nn import functional as F

from guard_plugin.errors import UnusableInput
from guard_plugin.students.augmentation import DSA_STRATEGY, augment
from guard_plugin.versions import strict_zip

KINDS = DSA_STRATEGY.split("_")


@pytest.fixture
def images():
    return torch.rand(64, 3, 16, 12) + 0.1  # never 0: a blank is told from an image


@pytest.mark.parametrize("kind", KINDS)
def test_seed_shape_gradient(images, kind):
    images.requires_grad_()
    torch.manual_seed(1)
    first = augment(images, kind)
    torch.manual_seed(1)
    assert torch.equal(augment(images, kind), first)
    assert not torch.equal(augment(images, kind), first)
    assert first.shape == images.shape
    (gradient,) = torch.autograd.grad(first.sum(), images)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flip"])
def test_images_of_a_batch_are_changed_each_in_its_own_way(kind):
    out = augment(torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1) + 0.1, kind)
    assert len({tuple(image.flatten().tolist()) for image in out}) > 4


def test_color_is_affine_per_image_and_pixel():
    """Brightness b in ±0.5, saturation s in [0, 2], contrast c in [0.5, 1.5]."""
    images = torch.rand(1000, 3, 6, 6, dtype=torch.float64)  # differences are divided below
    out = augment(images, "color")
    grey, level = images.mean(1, keepdim=True), images.mean((1, 2, 3), keepdim=True)
    grey_out, level_out = out.mean(1, keepdim=True), out.mean((1, 2, 3), keepdim=True)
    contrast = (grey_out - level_out) / (grey - level)
    brightness = level_out - level
    saturation = (out - grey_out) / (images - grey) / contrast
    for factor, low, high in ((contrast, 0.5, 1.5), (brightness, -0.5, 0.5), (saturation, 0.0, 2.0)):
        per_image = factor.flatten(1).median(dim=1).values
        assert low <= per_image.min() < low + 0.02 and high - 0.02 < per_image.max() <= high
    rebuilt = ((images - grey) * saturation.flatten(1).median(1).values.view(-1, 1, 1, 1) + grey - level) * contrast
    torch.testing.assert_close(rebuilt + level + brightness, out, rtol=0, atol=1e-8)


def test_crop_shifts_by_up_to_an_eighth_and_fills_with_zero(images):
    out, seen = augment(images, "crop"), set()
    for image, shifted in strict_zip(images, out):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(F.pad(image, (2, 2, 2, 2))[:, 2 + down : 18 + down, 2 + right : 14 + right], shifted)
        ]
        assert len(fits) == 1
        seen |= set(fits)
    assert {down for down, _ in seen} == {right for _, right in seen} == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize(("height", "width"), [(16, 12), (5, 9)])
def test_cutout_blanks_half_the_side_cut_off_at_the_border(height, width):
    out = augment(torch.ones(2000, 3, height, width), "cutout")
    assert torch.equal(out[:, 0], out[:, 1]) and set(out.unique().tolist()) == {0.0, 1.0}
    blank = out[:, 0] == 0
    rows, columns = blank.any(2), blank.any(1)
    assert torch.equal(blank, rows[:, :, None] & columns[:, None])  # a rectangle
    for line, side in ((rows, height), (columns, width)):
        length = math.floor(side / 2 + 0.5)
        firsts = range(-(length // 2), side + (1 - length % 2) - length // 2)
        wanted = {tuple(first <= i < first + length for i in range(side)) for first in firsts}
        assert {tuple(one.tolist()) for one in line} == wanted


def test_flip_mirrors_about_half_of_the_images(images):
    out = augment(images.repeat(10, 1, 1, 1), "flip")
    mirrored = (out == images.repeat(10, 1, 1, 1).flip(3)).flatten(1).all(1)
    kept = (out == images.repeat(10, 1, 1, 1)).flatten(1).all(1)
    assert (mirrored ^ kept).all() and 240 < mirrored.sum() < 400


def gradients_of(out):
    """Slopes along columns and rows at the centre of images whose channels are their own coordinates."""
    down = (out[:, :, 9, 8] - out[:, :, 7, 8]) / 2
    right = (out[:, :, 8, 9] - out[:, :, 8, 7]) / 2
    return torch.stack([right, down], dim=2)  # (n, coordinate x or y, along columns or rows)


@pytest.fixture
def coordinates():
    """Channel 0 holds the column, channel 1 the row, from -8 to 8; 17 x 17, so the centre is a pixel."""
    line = torch.arange(-8.0, 9.0)
    return torch.stack([line.expand(17, 17), line.view(-1, 1).expand(17, 17)]).expand(500, 2, 17, 17)


def test_scale_stretches_both_axes_independently(coordinates):
    slopes = gradients_of(augment(coordinates, "scale"))
    assert slopes[:, 0, 1].abs().max() < 1e-4 and slopes[:, 1, 0].abs().max() < 1e-4
    for factor in (slopes[:, 0, 0], slopes[:, 1, 1]):
        assert 1 / 1.2 - 1e-4 <= factor.min() < 0.85 and 1.18 < factor.max() <= 1.2 + 1e-4
    assert torch.corrcoef(torch.stack([slopes[:, 0, 0], slopes[:, 1, 1]]))[0, 1].abs() < 0.2


def test_rotate_turns_by_up_to_15_degrees(coordinates):
    slopes = gradients_of(augment(coordinates, "rotate"))
    degrees = torch.rad2deg(torch.atan2(slopes[:, 1, 0], slopes[:, 0, 0]))
    assert -15.01 < degrees.min() < -14 and 14 < degrees.max() < 15.01
    torch.testing.assert_close(slopes @ slopes.mT, torch.eye(2).expand(500, 2, 2), rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.linalg.det(slopes), torch.ones(500), rtol=0, atol=1e-3)


def test_one_kind_is_drawn_per_batch_each_as_often(images):
    def kinds_of(seed):
        """The kinds that alone give the same from the same seed: one draw for the kind comes first in both."""

        def seeded(strategy):
            torch.manual_seed(seed)
            return augment(images[:4], strategy)

        whole = seeded(DSA_STRATEGY)
        return [kind for kind in KINDS if torch.equal(seeded(kind), whole)]

    drawn = [kinds_of(seed) for seed in range(120)]
    assert all(len(kinds) == 1 for kinds in drawn)
    counts = {kind: sum(kinds == [kind] for kinds in drawn) for kind in KINDS}
    assert all(8 <= count <= 35 for count in counts.values()), counts


@pytest.mark.parametrize("strategy", ["", "color_blur", "none"])
def test_unknown_kinds_are_refused(images, strategy):
    with pytest.raises(UnusableInput, match="color, crop, cutout, flip, scale, rotate, joined by"):
        augment(images, strategy)
