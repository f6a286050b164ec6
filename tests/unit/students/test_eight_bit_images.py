"""Views of 8-bit images are what the hosts' Pillow pipeline shows."""

import dataclasses
import statistics

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomCrop, RandomResizedCrop
from torchvision.transforms.functional import crop, hflip, normalize, pad, resized_crop, to_tensor

from guard_plugin.distilled import DistilledSet, Mix, View
from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import Normalization
from guard_plugin.students import EightBitImages, ViewDrawing, draw_view
from guard_plugin.versions import strict_zip

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
HEIGHT, WIDTH, N = 20, 17, 6


@pytest.fixture
def arrays():
    return np.random.default_rng(0).integers(0, 256, (N, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def distilled(arrays):
    space = Normalization(MEAN, STD)
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255
    return DistilledSet(space.to_input(pixels), torch.arange(N), N, space)


def plain(n):
    return View(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * n), torch.zeros(n, dtype=torch.bool))


def boxes():
    """Top, left, height and width in pixels."""
    return [(0, 0, HEIGHT, WIDTH), (3, 2, 7, 9), (19, 16, 1, 1), (5, 0, 15, 17)]


def by_host(array, box, flip):
    """generate_soft_label.py's transforms, by torchvision on a Pillow image."""
    image = resized_crop(Image.fromarray(array), *box, [HEIGHT, WIDTH], InterpolationMode.BILINEAR)
    return normalize(to_tensor(hflip(image) if flip else image), MEAN, STD)


def test_the_whole_view_is_the_image(distilled):
    seen = EightBitImages(distilled).views(torch.tensor([4, 1]), plain(2))
    torch.testing.assert_close(seen, distilled.images[[4, 1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_the_hosts_to_the_bit(distilled, arrays, flip):
    """Their places are stored as float32 parts of the sides."""
    sides = torch.tensor([HEIGHT, WIDTH, HEIGHT, WIDTH])
    crops = torch.tensor(boxes(), dtype=torch.float32) / sides
    indices = torch.tensor([3, 0, 5, 2])
    seen = EightBitImages(distilled).views(indices, View(crops, torch.tensor([flip, not flip, flip, not flip])))
    for number, (index, box) in enumerate(strict_zip(indices.tolist(), boxes())):
        expected = by_host(arrays[index], box, flip if number % 2 == 0 else not flip)
        torch.testing.assert_close(seen[number], expected, rtol=0, atol=1e-6)


def test_mixtures_are_the_hosts(distilled):
    indices, order = torch.tensor([5, 0, 3]), torch.tensor([2, 0, 1])
    unmixed, images = distilled.images[indices], EightBitImages(distilled)
    view = dataclasses.replace(plain(3), mix=Mix(order, 0.3))
    torch.testing.assert_close(images.views(indices, view), 0.3 * unmixed + 0.7 * unmixed[order])
    view = dataclasses.replace(plain(3), mix=Mix(order, 0.3, (2, 5, 20, 17)))
    expected = unmixed.clone()
    expected[:, :, 2:20, 5:17] = unmixed[order][:, :, 2:20, 5:17]
    torch.testing.assert_close(images.views(indices, view), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("box", [(0, 0, HEIGHT + 1, 3), (0, 0, 3, WIDTH + 1)])
def test_a_view_of_larger_images_is_refused(distilled, box):
    view = dataclasses.replace(plain(2), mix=Mix(torch.tensor([1, 0]), 0.5, box))
    with pytest.raises(UnusableInput, match="another --input-size"):
        EightBitImages(distilled).views(torch.tensor([0, 1]), view)


@pytest.mark.parametrize(
    "change", [lambda pixels: pixels * 0.999, lambda pixels: pixels + 1, lambda pixels: pixels - 1]
)
def test_images_that_are_not_8_bit_are_refused(distilled, change):
    with pytest.raises(UnusableInput, match="expected 8-bit images"):
        images = distilled.normalization.to_input(change(distilled.pixels()))
        EightBitImages(dataclasses.replace(distilled, images=images))


@pytest.mark.parametrize(("size", "min_scale"), [((28, 28), 0.08), ((28, 28), 0.5), ((20, 40), 0.5), ((50, 21), 0.7)])
def test_crops_are_distributed_as_torchvisions(size, min_scale):
    n, sides = 4000, torch.tensor([size[0], size[1], size[0], size[1]])
    ours = draw_view(n, size, ViewDrawing(min_scale)).crops * sides
    blank = torch.empty(1, *size)
    theirs = torch.tensor([RandomResizedCrop.get_params(blank, [min_scale, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    assert torch.allclose(ours, ours.round(), atol=1e-4)  # whole pixels
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] >= 1 - 1e-4).all()
    assert (ours[:, :2] + ours[:, 2:] <= sides[:2] + 1e-4).all()
    for mine, other in strict_zip(features(ours), features(theirs.float())):
        spread = statistics.pstdev(other.tolist())
        assert abs(mine.mean() - other.mean()) <= 5 * spread * (2 / n) ** 0.5 + 1e-4
        assert abs(mine.std() - other.std()) <= 0.1 * spread + 1e-4


def features(crops):
    """Places, area and logarithmic ratio."""
    tops, lefts, rows, columns = crops.T
    return tops, lefts, (rows * columns), (columns / rows).log()


def test_shifted_images_are_those_of_the_hosts_random_crop(distilled, arrays):
    """RandomCrop(size, padding=4) of a Pillow image: each place as often, black around."""
    drawing, indices = ViewDrawing(1.0, shift=4, mix="none"), torch.tensor([2, 0, 5])
    view = draw_view(3, (HEIGHT, WIDTH), drawing)
    seen = EightBitImages(distilled).views(indices, view)
    for number, index in enumerate(indices.tolist()):
        top, left = (round(float(view.crops[number, side]) * (HEIGHT, WIDTH)[side]) for side in (0, 1))
        shifted = crop(pad(Image.fromarray(arrays[index]), 4), top + 4, left + 4, HEIGHT, WIDTH)
        expected = normalize(to_tensor(hflip(shifted) if view.flips[number] else shifted), MEAN, STD)
        torch.testing.assert_close(seen[number], expected, rtol=0, atol=1e-6)
    n, padded = 4000, torch.empty(1, HEIGHT + 8, WIDTH + 8)
    theirs = torch.tensor([RandomCrop.get_params(padded, (HEIGHT, WIDTH))[:2] for _ in range(n)]) - 4
    ours = (draw_view(n, (HEIGHT, WIDTH), drawing).crops[:, :2] * torch.tensor([HEIGHT, WIDTH])).round().long()
    for side in (0, 1):
        counts = [torch.bincount(places[:, side] + 4, minlength=9) / n for places in (ours, theirs)]
        assert len(counts[0]) == 9 and (counts[0] - counts[1]).abs().max() < 5 * (2 / 9 / n) ** 0.5


def test_shares_of_mixup_have_the_hosts_distribution():
    """np.random.beta(0.8, 0.8), whose variance is 0.096; that of uniform numbers is 0.083."""
    mixes = [draw_view(2, (8, 8), ViewDrawing(1.0, shift=4, mix="mixup", mix_alpha=0.8)).mix for _ in range(4000)]
    assert all(mix.box is None for mix in mixes)
    shares = [mix.own for mix in mixes]
    assert statistics.mean(shares) == pytest.approx(0.5, abs=0.025)
    assert statistics.pvariance(shares) == pytest.approx(1 / (4 * 2.6), abs=0.006)


def test_flips_and_rectangles_are_distributed_as_the_hosts():
    """rand_bbox in utils_fkd.py: its share of the area is 1 - lam, but for what the border cuts off."""
    views = [draw_view(40, (28, 20), ViewDrawing(0.5)) for _ in range(400)]
    flips = torch.cat([view.flips for view in views]).float().mean()
    assert abs(flips - 0.5) < 0.02
    for view in views:
        own, (top, left, bottom, right) = view.mix.own, view.mix.box
        assert 0 <= top <= bottom <= 28 and 0 <= left <= right <= 20
        assert bottom - top <= int(28 * (1 - own) ** 0.5) and right - left <= int(20 * (1 - own) ** 0.5)
        assert sorted(view.mix.order.tolist()) == list(range(40))
    rng = np.random.default_rng(0)
    theirs = [host_share(rng) for _ in range(4000)]
    ours = [(b[2] - b[0]) * (b[3] - b[1]) / 560 for b in (view.mix.box for view in views)]
    assert abs(statistics.mean(ours) - statistics.mean(theirs)) < 5 * statistics.pstdev(theirs) / len(ours) ** 0.5
    assert statistics.pstdev(ours) == pytest.approx(statistics.pstdev(theirs), rel=0.15)


def host_share(rng):
    cut = np.sqrt(1 - rng.beta(1.0, 1.0))
    share = 1.0
    for side in (28, 20):
        half, centre = int(side * cut) // 2, rng.integers(side)
        share *= (np.clip(centre + half, 0, side) - np.clip(centre - half, 0, side)) / side
    return share
