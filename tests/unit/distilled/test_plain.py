"""Distilled images in plain files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guard_plugin.distilled.plain import read_plain
from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.plugins import Plugins
from guard_plugin.spaces import Normalization
from tests.hostile import Hostile

VALUES = torch.randint(0, 256, (6, 3, 8, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
PIXELS = VALUES.float() / 255
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
IDENTITY = Normalization((0.0,) * 3, (1.0,) * 3)


def saved(tmp_path, content, name="set.pt"):
    if name.endswith(".npz"):
        np.savez(tmp_path / name, **{key: np.asarray(value) for key, value in content.items()})
    else:
        torch.save(content, tmp_path / name)
    return tmp_path / name


def one(path):
    (distilled,) = read_plain(path)
    return distilled


@pytest.mark.parametrize("images", [VALUES, PIXELS, PIXELS.double()])
@pytest.mark.parametrize("form", ["dictionary", "tuple", "list", "npz"])
def test_pixels_are_taken_as_they_are(tmp_path, images, form):
    content = {"tuple": (images, LABELS), "list": [images, LABELS]}.get(form, {"images": images, "labels": LABELS})
    distilled = one(saved(tmp_path, content, "set.npz" if form == "npz" else "set.pth"))
    assert torch.equal(distilled.images, PIXELS) and torch.equal(distilled.labels, LABELS)
    assert distilled.num_classes == 3 and distilled.normalization == IDENTITY and distilled.images_per_class == 2
    assert (distilled.dataset, distilled.arch, distilled.recipe) == (None, None, "dc")


@pytest.mark.parametrize(
    ("images", "shown"),
    [(PIXELS - 2.0**-25, "from -2.9802322e-08 to 1"), (PIXELS * (1 + 2.0**-23), "from 0 to 1.0000001")],
)
def test_pixels_that_leave_their_range_by_rounding_need_a_clamp_and_no_mean(tmp_path, images, shown):
    path = saved(tmp_path, {"images": images, "labels": LABELS})
    with pytest.raises(UnusableInput, match=rf"{shown}: they leave it by rounding alone: images.clamp\(0, 1\) brings"):
        read_plain(path)
    assert one(saved(tmp_path, {"images": images.clamp(0, 1), "labels": LABELS})).normalization == IDENTITY


@pytest.mark.parametrize("layout", [VALUES.permute(0, 2, 3, 1), VALUES[:, 0]])
def test_other_layouts_become_channels_first(tmp_path, layout):
    distilled = one(saved(tmp_path, {"images": layout.contiguous(), "labels": LABELS}))
    assert torch.equal(distilled.images, PIXELS if layout.dim() == 4 else PIXELS[:, :1])


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("name", ["set.pt", "set.npz"])
@pytest.mark.parametrize("given", [list, torch.tensor, np.array])
def test_normalised_images_bring_their_mean_and_std(tmp_path, name, given):
    if given is np.array and name == "set.pt":
        given = tuple
    normalization = Normalization(MEAN, STD)
    inputs = normalization.to_input(PIXELS)
    content = {"images": inputs, "labels": LABELS, "mean": given(MEAN), "std": given(STD)}
    distilled = one(saved(tmp_path, content, name))
    assert torch.equal(distilled.images, inputs)
    torch.testing.assert_close(distilled.normalization.mean, MEAN)
    torch.testing.assert_close(distilled.pixels(), PIXELS)


def test_bytes_are_pixels_that_mean_and_std_normalise(tmp_path):
    distilled = one(saved(tmp_path, {"images": VALUES, "labels": LABELS, "mean": MEAN, "std": STD}))
    torch.testing.assert_close(distilled.images[:, 2], (PIXELS[:, 2] - 0.3) / 0.3)
    torch.testing.assert_close(distilled.pixels(), PIXELS)


@pytest.mark.parametrize("labels", [LABELS.int(), LABELS.to(torch.uint8), LABELS.float(), LABELS[:, None]])
def test_class_indices_of_any_type_are_read(tmp_path, labels):
    assert torch.equal(one(saved(tmp_path, {"images": VALUES, "labels": labels})).labels, LABELS)


def test_soft_labels_tell_the_number_of_classes(tmp_path):
    labels = torch.rand(6, 5).softmax(1).half()
    distilled = one(saved(tmp_path, {"images": VALUES, "labels": labels}))
    assert torch.equal(distilled.labels, labels.float()) and distilled.num_classes == 5


@pytest.mark.parametrize("name", ["set.pt", "set.npz"])
def test_the_file_may_tell_the_number_of_classes(tmp_path, name):
    assert one(saved(tmp_path, {"images": VALUES, "labels": LABELS, "num_classes": 10}, name)).num_classes == 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": PIXELS * 2, "labels": LABELS}, r"in \[0, 1\] \(or uint8\), got values from .*'mean' and 'std'"),
        ({"images": PIXELS - 0.5, "labels": LABELS}, r"expected images in \[0, 1\]"),
        ({"images": PIXELS * torch.nan, "labels": LABELS}, r"expected images in \[0, 1\]"),
        ({"images": PIXELS, "labels": LABELS, "mean": MEAN}, "both 'mean' and 'std', or neither; found only 'mean'"),
        ({"images": PIXELS, "labels": LABELS, "mean": [0.5], "std": [0.5]}, r"expected 3 number\(s\)"),
        ({"images": PIXELS, "labels": LABELS, "mean": MEAN, "std": (0, 1, 1)}, "> 0"),
        ({"images": PIXELS, "labels": LABELS, "mean": MEAN, "std": ["a"]}, "expected numbers as 'std'"),
        ({"images": PIXELS, "labels": LABELS, "mean": [125, 123, 114], "std": [63, 62, 67]}, "divide them by 255"),
        ({"images": PIXELS, "labels": LABELS, "mean": (float("inf"), 0, 0), "std": STD}, "finite numbers.*inf"),
        ({"images": PIXELS, "labels": LABELS, "num_classes": 2}, r"in \[0, 2\), got 0 to 2"),
        ({"images": PIXELS, "labels": LABELS, "num_classes": "ten"}, "integer as 'num_classes'"),
        ({"images": PIXELS, "labels": LABELS[:5]}, r"one label per distilled image"),
        ({"images": PIXELS, "labels": LABELS - 1}, "got -1 to 1"),
        ({"images": PIXELS, "labels": LABELS + 0.5}, "class indices, integers"),
        ({"images": PIXELS, "labels": torch.randn(6, 3)}, "take their softmax"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "found none"),
        ({"images": VALUES.int(), "labels": LABELS}, "uint8 or floating point, got torch.int32"),
        ({"images": PIXELS[:, :2], "labels": LABELS}, "1 or 3 channels"),
        ({"data": [[PIXELS, LABELS]]}, "expected tensors 'images' and 'labels', found 'data': list"),
        ((PIXELS, [0, 1, 2, 2, 1, 0]), "found 'images': Tensor, 'labels': list"),
        (PIXELS, "got Tensor; what a known host wrote is read by its own --adapter"),
    ],
)
def test_other_contents_are_refused(tmp_path, content, words):
    with pytest.raises(UnusableInput, match=words):
        read_plain(saved(tmp_path, content))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "set.npy").write_bytes(b"")
    with pytest.raises(UnusableInput, match=r"expected a \.pt of .*got .*set\.npy"):
        read_plain(tmp_path / "set.npy")


@pytest.mark.parametrize("name", ["set.pt", "set.npz"])
def test_code_is_not_executed_but_refused(tmp_path, name):
    hostile = np.array([Hostile()], dtype=object) if name == "set.npz" else Hostile()
    path = saved(tmp_path, {"images": VALUES, "labels": hostile}, name)
    with pytest.raises(UnsafeFile, match="is refused"):
        read_plain(path)
    assert not Path("executed").exists()


def write_tree(root, suffixes=("png", "PNG")):
    for label, name in enumerate(("apple", "pear", "zebra")):
        (root / name).mkdir(parents=True)
        for i, suffix in enumerate(suffixes):
            values = VALUES[2 * label + i].permute(1, 2, 0).numpy()
            Image.fromarray(values).save(root / name / f"{i}.{suffix}")
    return root


def test_a_folder_per_class_is_read_in_the_order_of_names(tmp_path, monkeypatch):
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listed(folder), reverse=True)))
    distilled = one(write_tree(tmp_path))
    assert torch.equal(distilled.images, PIXELS) and distilled.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert distilled.num_classes == 3 and distilled.normalization == IDENTITY
    assert [file.parent.name for file in distilled.files] == ["apple", "apple", "pear", "pear", "zebra", "zebra"]


def test_jpeg_images_and_hidden_files(tmp_path):
    root = write_tree(tmp_path / "set", ("jpg", "JPEG"))
    (root / ".DS_Store").write_bytes(b"")
    (root / "pear" / ".hidden").write_bytes(b"")
    expected = np.asarray(Image.open(root / "pear" / "0.jpg"))
    np.testing.assert_array_equal((one(root).images[2] * 255).round().permute(1, 2, 0).numpy(), expected)


def test_grey_images_have_one_channel(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(VALUES[0, 0].numpy()).save(tmp_path / name / "0.png")
    assert torch.equal(one(tmp_path).images, PIXELS[:1, :1].repeat(2, 1, 1, 1))


def write(text):
    return lambda file: file.write_text(text)


@pytest.mark.parametrize(
    ("file", "make", "words"),
    [
        ("notes.txt", write("x"), "found notes.txt in"),
        ("pear/0.gif", write("x"), "expected PNG or JPEG images, found 0.gif in .*pear"),
        ("pear/2.png", write("damaged"), "2.png cannot be read"),
        ("pear/more", Path.mkdir, "found more"),
        ("quince", Path.mkdir, "expected PNG or JPEG images, found nothing in .*quince"),
        ("pear/2.png", Image.new("RGB", (9, 9)).save, "of one size and kind.* and .*pear/2.png"),
        ("pear/2.png", Image.new("RGBA", (10, 8)).save, "mode RGBA: convert it"),
    ],
)
def test_other_trees_are_refused(tmp_path, file, make, words):
    make(write_tree(tmp_path) / file)
    with pytest.raises(UnusableInput, match=words):
        read_plain(tmp_path)


def test_numbered_classes_are_in_the_order_of_their_numbers_or_refused(tmp_path):
    for number in range(2, 11):
        (tmp_path / str(number)).mkdir()
        Image.fromarray(VALUES[0, 0].numpy()).save(tmp_path / str(number) / "0.png")
    with pytest.raises(UnusableInput, match=r"as text \(10, 2, 3, 4, ...\)"):
        read_plain(tmp_path)
    (tmp_path / "10").rename(tmp_path / "1")
    assert one(tmp_path).num_classes == 9


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="found nothing in"):
        read_plain(tmp_path)


def test_the_core_reads_plain_files_and_leaves_other_names_alone(tmp_path):
    path = saved(tmp_path, {"images": VALUES, "labels": LABELS})
    hook = Plugins(found=[]).hook
    (distilled,) = hook.read_distilled(adapter="plain", path=path)
    assert torch.equal(distilled.images, PIXELS)
    assert hook.read_distilled(adapter="other", path=path) is None
