import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from guard_plugin.distilled import DistilledSet
from guard_plugin.drawing import draw, draw_all, grid, png_bytes, rows_of_classes
from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import Normalization

PIXELS = Normalization(mean=(0.0,), std=(1.0,))


def distilled(labels, *, size=8, classes=3):
    """Image i is of the grey i / 10."""
    labels = torch.tensor(labels)
    images = (torch.arange(len(labels)) / 10).reshape(-1, 1, 1, 1).expand(-1, 1, size, size).clone()
    return DistilledSet(images=images, labels=labels, num_classes=classes, normalization=PIXELS)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_what_others_read(channels):
    image = torch.rand(channels, 5, 7)
    read = np.asarray(Image.open(io.BytesIO(png_bytes(image))))
    expected = (image * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    assert np.array_equal(read, expected)


def test_png_of_other_channels_is_refused():
    with pytest.raises(UnusableInput, match="1 or 3 channels, got 2"):
        png_bytes(torch.rand(2, 5, 7))


def test_grid_is_torchvisions():
    images = torch.rand(6, 3, 40, 33)
    expected = make_grid(images, nrow=3, padding=2, pad_value=1.0)
    assert torch.equal(grid(images, 3), expected)


def test_small_images_are_enlarged():
    assert grid(torch.rand(2, 1, 8, 8), 2).shape == (1, 34 + 2, 2 * 34 + 2)


def test_a_row_holds_an_image_of_every_class():
    rows = rows_of_classes(distilled([2, 0, 1, 1, 0, 2]))
    assert torch.allclose(rows[:, 0, 0, 0], torch.tensor([0.1, 0.2, 0.0, 0.4, 0.3, 0.5]))
    few = rows_of_classes(distilled([2, 0, 1, 1, 0, 2]), classes=2, rows=1)
    assert torch.allclose(few[:, 0, 0, 0], torch.tensor([0.1, 0.2]))


def test_a_class_without_images_is_refused():
    with pytest.raises(UnusableInput, match="classes without one"):
        rows_of_classes(distilled([0, 1, 0]))


def test_sets_are_drawn_from_top_to_bottom(tmp_path):
    three = [distilled([0, 1, 2]) for _ in range(3)]
    draw_all(three, tmp_path / "three.png")
    draw(*three[:2], tmp_path / "two.png")
    heights = [Image.open(io.BytesIO((tmp_path / name).read_bytes())).height for name in ("three.png", "two.png")]
    assert heights == [5 * 34 + 2, 3 * 34 + 2]  # a white row between two sets


def test_sets_of_other_sizes_are_refused(tmp_path):
    with pytest.raises(UnusableInput, match="of one \\(classes, channels, height, width\\)"):
        draw(distilled([0, 1, 2]), distilled([0, 1, 2], size=16), tmp_path / "two.png")
