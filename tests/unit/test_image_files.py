"""8-bit images from files."""

import sys

import numpy as np
import pytest
from PIL import Image

from guard_plugin.errors import UnusableInput
from guard_plugin.image_files import read_image_files


def write(file, mode="RGB", size=(5, 4), format="PNG"):
    """Write noise; (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    values = np.random.default_rng(len(file.name)).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values, mode).save(file, format=format)
    return values.reshape(size[1], size[0], -1).transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_values_are_the_files_in_their_order(tmp_path, mode):
    files = [tmp_path / "bb.png", tmp_path / "a.png"]
    written = [write(file, mode) for file in files]
    images = read_image_files(files)
    assert images.shape == (2, len(mode), 4, 5)
    np.testing.assert_array_equal(images.numpy(), np.stack(written))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"size": (5, 6)}, r"one size and kind, got .* = \(4, 5, 3\) in .*a.png and \(6, 5, 3\) in .*b.png"),
        ({"mode": "L"}, r"one size and kind, got .*\(4, 5, 1\) in .*b.png"),
        ({"mode": "RGBA"}, "b.png: expected a grey or RGB image, got mode RGBA: convert it"),
        ({"format": "GIF", "mode": "L"}, "b.png cannot be read as a PNG or JPEG image"),
    ],
)
def test_other_images_are_refused(tmp_path, second, words):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    write(files[0])
    write(files[1], **second)
    with pytest.raises(UnusableInput, match=words):
        read_image_files(files)


def test_images_are_turned_as_their_exif_data_say(tmp_path):
    values = write(tmp_path / "a.png")
    exif = Image.Exif()
    exif[274] = 8  # orientation: the first row is at the left
    Image.open(tmp_path / "a.png").save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(read_image_files([tmp_path / "b.png"])[0].numpy(), np.rot90(values, 1, (1, 2)))


def test_damaged_files_and_other_formats_are_refused(tmp_path):
    file = tmp_path / "a.png"
    write(file)
    with pytest.raises(UnusableInput, match="cannot be read as a JPEG image"):
        read_image_files([file], ["JPEG"])
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UnusableInput, match="cannot be read as a PNG or JPEG image"):
        read_image_files([file])


def test_without_pillow_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UnusableInput, match=r"guard-plugin\[bench\]"):
        read_image_files([tmp_path / "a.png"])
