import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from guard_plugin.distilled import DistilledSet
from guard_plugin.drawing import draw_all, rows_of_classes, sheet
from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import Normalization

PIXELS = Normalization(mean=(0.0,), std=(1.0,))


def distilled(labels, *, size=8, classes=3):
    """Image i is of the grey i / 10."""
    labels = torch.tensor(labels)
    images = (torch.arange(len(labels)) / 10).reshape(-1, 1, 1, 1).expand(-1, 1, size, size).clone()
    return DistilledSet(images=images, labels=labels, num_classes=classes, normalization=PIXELS)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_has_the_images_row_by_row_on_white(channels):
    """Six images of 40x33 pixels in three columns, with two white pixels around each."""
    images = torch.rand(6, channels, 40, 33)
    drawn = sheet(images, 3)
    assert drawn.mode == {1: "L", 3: "RGB"}[channels] and drawn.size == (3 * 35 + 2, 2 * 42 + 2)
    levels = np.asarray(drawn).reshape(drawn.height, drawn.width, channels)
    expected = np.full_like(levels, 255)
    for i, image in enumerate((images * 255).round().byte().numpy()):
        top, left = 2 + 42 * (i // 3), 2 + 35 * (i % 3)
        expected[top : top + 40, left : left + 33] = image.transpose(1, 2, 0)
    assert np.array_equal(levels, expected)


def test_small_images_are_enlarged():
    images = torch.tensor([0.0, 1.0, 0.5, 0.25]).reshape(1, 1, 2, 2).repeat(2, 1, 4, 4)
    levels = np.asarray(sheet(images, 2))
    assert levels.shape == (34 + 2, 2 * 34 + 2)
    assert (levels[2:6, 2:6] == 0).all() and (levels[2:6, 6:10] == 255).all() and (levels[6:10, 2:6] == 128).all()


def test_images_of_other_channels_are_refused():
    with pytest.raises(UnusableInput, match="1 or 3 channels to draw, got 2"):
        sheet(torch.rand(1, 2, 5, 7), 1)


def test_without_torchvision_the_fix_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.utils", None)
    with pytest.raises(UnusableInput, match="drawing images needs torchvision.utils, .* pip install"):
        sheet(torch.rand(2, 1, 8, 8), 2)


def test_a_row_holds_an_image_of_every_class():
    rows = rows_of_classes(distilled([2, 0, 1, 1, 0, 2]))
    assert torch.allclose(rows[:, 0, 0, 0], torch.tensor([0.1, 0.2, 0.0, 0.4, 0.3, 0.5]))
    few = rows_of_classes(distilled([2, 0, 1, 1, 0, 2]), classes=2, rows=1)
    assert torch.allclose(few[:, 0, 0, 0], torch.tensor([0.1, 0.2]))


def test_a_class_without_images_is_refused():
    with pytest.raises(UnusableInput, match="classes without one"):
        rows_of_classes(distilled([0, 1, 0]))


def test_sets_are_drawn_from_top_to_bottom_each_under_its_label(tmp_path):
    draw_all({"one": distilled([0, 1, 2]), "other \u4e00": distilled([2, 1, 0])}, tmp_path / "two.png")
    levels = np.asarray(Image.open(io.BytesIO((tmp_path / "two.png").read_bytes())))
    assert levels.shape == (2 * (36 + 16), 3 * 34 + 2)
    for top, of in ((0, distilled([0, 1, 2])), (52, distilled([2, 1, 0]))):
        assert (levels[top : top + 16] < 128).any() and (levels[top : top + 16, -1] == 255).all()
        assert np.array_equal(levels[top + 16 : top + 52], np.asarray(sheet(rows_of_classes(of), 3)))


def test_sets_of_other_sizes_are_refused(tmp_path):
    with pytest.raises(UnusableInput, match="of one \\(classes, channels, height, width\\)"):
        draw_all({"a": distilled([0, 1, 2]), "b": distilled([0, 1, 2], size=16)}, tmp_path / "two.png")
