"""Folders of images: ImageFolder's layout, and Tiny-ImageNet's own."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, ExifTags, Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from guard_plugin.datasets import load_training_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import load_images

CLASSES = ("n01", "n02", "n03")


def write_image(file, size=(8, 8), seed=0):
    """Write noise; (width, height)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(file)


def fill(folder, per_class, first=0, **kind):
    for c, name in enumerate(CLASSES):
        for i in range(per_class):
            write_image(folder / name / f"{i:03d}.png", seed=first + c * per_class + i, **kind)


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "train", 13)
    fill(tmp_path / "val", 6, first=100)
    return tmp_path


def expected(folder, transform=None):
    """By torchvision, in the documented order."""
    dataset = ImageFolder(folder, transforms.Compose([*([transform] if transform else []), transforms.ToTensor()]))
    order = np.random.RandomState(0).permutation(len(dataset))
    return torch.stack([dataset[i][0] for i in order]), torch.tensor([dataset[i][1] for i in order])


@pytest.mark.parametrize("name", ["ImageFolder", "imagefolder"])
def test_images_are_torchvisions_in_a_fixed_permutation(root, name):
    images = load_images(name, root)
    pixels, labels = expected(root / "val")
    assert torch.equal(images.pixels, pixels) and torch.equal(images.labels, labels)
    assert images.num_classes == 3 and images.name == "ImageFolder"


def test_the_first_examples_are_of_several_classes_and_no_others_are_read(root):
    whole = load_images("ImageFolder", root)
    order = np.random.RandomState(0).permutation(18)
    files = sorted((root / "val").rglob("*.png"))
    for index in order[6:]:
        files[index].write_bytes(b"damaged")
    few = load_images("ImageFolder", root, n_examples=6)
    assert torch.equal(few.pixels, whole.pixels[:6]) and len(set(few.labels.tolist())) == 3
    assert few.sha256 != whole.sha256
    with pytest.raises(UnusableInput, match=r"n0\d/00\d.png cannot be read.*damaged"):
        load_images("ImageFolder", root, n_examples=7)


@pytest.mark.parametrize(
    "content", [None, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"]
)
def test_no_pipe_is_waited_for_and_no_program_is_run(root, monkeypatch, content):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: Image.new("RGB", (8, 8)).im)
    for file in (root / "val").rglob("*.png"):
        file.unlink()
        os.mkfifo(file) if content is None else file.write_bytes(content)
    with pytest.raises(UnusableInput, match=r"\.png (cannot be read|is a pipe)"):
        load_images("ImageFolder", root)


def test_annotations_that_are_no_text_are_refused(tmp_path):
    write_image(tmp_path / "val" / "images" / "a.png")
    (tmp_path / "val" / "val_annotations.txt").write_bytes(b"a.png\t\xff\xfe")
    with pytest.raises(UnusableInput, match="expected lines of an image's name"):
        load_images("TinyImageNet", tmp_path)


def test_val_is_the_last_tenth_of_train_where_val_is_the_test_split(root):
    pixels, labels = expected(root / "train")
    train, val = (load_images("ImageFolder", root, split) for split in ("train", "val"))
    assert torch.equal(train.pixels, pixels[:36]) and torch.equal(val.pixels, pixels[36:])
    assert torch.equal(torch.cat([train.labels, val.labels]), labels)
    assert torch.equal(load_training_images("ImageFolder", root).pixels, pixels)


def test_val_is_its_own_where_there_is_a_test_folder(root):
    fill(root / "test", 2, first=200)
    for split, folder in (("train", "train"), ("val", "val"), ("test", "test")):
        assert torch.equal(load_images("ImageFolder", root, split).pixels, expected(root / folder)[0])
    assert torch.equal(load_training_images("ImageFolder", root).pixels, expected(root / "train")[0])


@pytest.mark.parametrize("size", [7, 8])
def test_a_size_resizes_and_crops_as_torchvisions_evaluation_does(tmp_path, size):
    fill(tmp_path / "test", 2, size=(12, 10))
    write_image(tmp_path / "test" / "n01" / "000.png", size=(9, 20))
    images = load_images(f"ImageFolder@{size}", tmp_path)
    usual = transforms.Compose([transforms.Resize({7: 8, 8: 9}[size]), transforms.CenterCrop(size)])
    assert torch.equal(images.pixels, expected(tmp_path / "test", usual)[0])
    assert images.pixels.shape[1:] == (3, size, size) and images.name == f"ImageFolder@{size}"


def test_several_sizes_are_refused_with_the_fix(root):
    write_image(root / "val" / "n02" / "000.png", size=(9, 8))
    with pytest.raises(UnusableInput, match=r"of one size.*ImageFolder@64"):
        load_images("ImageFolder", root)


def test_the_last_classes_may_have_no_folder(root):
    whole, more = load_images("ImageFolder", root), load_images("ImageFolder", root, num_classes=5)
    assert (whole.num_classes, more.num_classes) == (3, 5) and torch.equal(whole.labels, more.labels)
    with pytest.raises(UnusableInput, match="expected --num-classes >= 3, the folders in .*, got 2"):
        load_images("ImageFolder", root, num_classes=2)


def test_classes_must_agree(root):
    write_image(root / "train" / "n00" / "0.png")
    with pytest.raises(UnusableInput, match=r"same classes in .*train and .*val, got 4 and 3.*only: n00"):
        load_images("ImageFolder", root)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ((), "found neither val/ nor test/"),
        (("train/a", "train/b"), "found neither val/ nor test/"),
        (("test/a",), "two or more, in .*test; found a"),
        (("test/a", "test/b"), "cannot be read as folders of images"),
    ],
)
def test_missing_folders_and_images_are_named(tmp_path, folders, words):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UnusableInput, match=words):
        load_images("ImageFolder", tmp_path)


def test_without_training_images_only_the_test_split_is_there(tmp_path):
    fill(tmp_path / "test", 2)
    assert len(load_images("ImageFolder", tmp_path).labels) == 6
    for read in (load_training_images, lambda *a: load_images(*a, "val")):
        with pytest.raises(UnusableInput, match="holds no train split here, only test"):
            read("ImageFolder", tmp_path)


def test_more_examples_than_there_are_are_refused(root):
    with pytest.raises(UnusableInput, match="from 1 to 18, which is what the test split of ImageFolder holds; got 19"):
        load_images("ImageFolder", root, n_examples=19)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([str(k) for k in range(12)], r"\(0, 1, 10, 11, ...\) .* by value \(0, 1, 2, 3, ...\).*equally many digits"),
        (["class8", "class9", "class10"], r"\(class10, class8, class9, ...\)"),
        ([str(k) for k in range(10)], None),
        ([f"{k:02d}" for k in range(12)], None),
        (["9_cats", "10_dogs"], None),
        (["9", "10", "other"], None),
    ],
)
def test_numbered_classes_are_in_the_order_of_their_numbers_or_refused(tmp_path, names, words):
    for label, name in enumerate(names):
        write_image(tmp_path / "test" / name / "0.png", seed=label)
    if words:
        with pytest.raises(UnusableInput, match=words):
            load_images("ImageFolder", tmp_path)
        return
    images = load_images("ImageFolder", tmp_path)
    pixels, labels = expected(tmp_path / "test")
    assert torch.equal(images.pixels, pixels) and torch.equal(images.labels, labels)


VALUES = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
GREY = VALUES[..., 0]


def saved_as(folder, image, suffix="png", **options):
    for name in ("a", "b"):
        file = folder / "test" / name / f"0.{suffix}"
        file.parent.mkdir(parents=True)
        image.save(file, **options)
    return folder


def as_read(folder):
    return (load_images("ImageFolder", folder).pixels[0] * 255).round().permute(1, 2, 0).numpy()


def test_palettes_bits_and_transparency_are_converted(tmp_path):
    palette = Image.fromarray(GREY // 64, "P")
    palette.putpalette(VALUES[0, :4].tobytes())
    np.testing.assert_array_equal(as_read(saved_as(tmp_path / "P", palette)), VALUES[0, :4][GREY // 64])
    bits = Image.fromarray(GREY > 127)
    assert bits.mode == "1"
    np.testing.assert_array_equal(as_read(saved_as(tmp_path / "1", bits)), np.stack([(GREY > 127) * 255] * 3, 2))
    alpha = Image.fromarray(np.dstack([VALUES, GREY]))
    np.testing.assert_array_equal(as_read(saved_as(tmp_path / "A", alpha)), VALUES)


def test_cmyk_is_converted_by_its_formula(tmp_path):
    inks = np.full((8, 8, 4), (51, 0, 102, 25), dtype=np.uint8)
    read = as_read(saved_as(tmp_path, Image.fromarray(inks, "CMYK"), "jpg", quality=100))
    np.testing.assert_allclose(read[4, 4], [(1 - ink / 255) * (1 - 25 / 255) * 255 for ink in (51, 0, 102)], atol=3)


def test_sixteen_bits_of_colour_are_rounded_to_eight(tmp_path):
    deep = (VALUES.astype(np.uint16) * 257).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in deep)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    png = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "test" / name / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    np.testing.assert_array_equal(as_read(tmp_path), VALUES)


@pytest.mark.parametrize(
    ("image", "suffix", "mode"),
    [
        (Image.fromarray(GREY.astype(np.uint16) * 257), "png", "I;16"),
        (Image.fromarray(GREY.astype(np.int32)), "tif", "I"),
        (Image.fromarray(GREY.astype(np.float32) / 255), "tif", "F"),
        (Image.fromarray(VALUES).convert("LAB"), "tif", "LAB"),
    ],
)
def test_deeper_images_are_refused(tmp_path, image, suffix, mode):
    saved_as(tmp_path, image, suffix)
    words = rf"0.{suffix}: expected an image of at most 8 bits .*, got mode {mode}: scale"
    with pytest.raises(UnusableInput, match=words) as raised:
        load_images("ImageFolder", tmp_path)
    assert "damaged" not in str(raised.value)


@pytest.mark.parametrize(
    ("orientation", "turned"), [(1, VALUES), (3, VALUES[::-1, ::-1]), (6, np.rot90(VALUES[:, :5], -1))]
)
def test_images_are_turned_as_their_exif_data_say(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    values = VALUES[:, :5] if orientation == 6 else VALUES
    read = as_read(saved_as(tmp_path, Image.fromarray(np.ascontiguousarray(values)), exif=exif))
    np.testing.assert_array_equal(read, turned)


@pytest.fixture
def tiny(tmp_path):
    """Tiny-ImageNet as it is published: test/ has no labels, and val/ has them in a file."""
    root = tmp_path / "tiny-imagenet-200"
    for c, name in enumerate(CLASSES):
        write_image(root / "train" / name / "images" / f"{name}_0.JPEG", seed=c)
    lines = []
    for i in range(6):
        write_image(root / "val" / "images" / f"val_{i}.JPEG", seed=10 + i)
        lines.append(f"val_{i}.JPEG\t{CLASSES[(i * 2) % 3]}\t0\t0\t7\t7")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    write_image(root / "test" / "images" / "test_0.JPEG")
    return tmp_path


def test_tiny_imagenet_as_published_is_read_by_its_annotations(tiny):
    published = tiny / "tiny-imagenet-200"
    images = load_images("TinyImageNet", tiny)
    order = np.random.RandomState(0).permutation(6)
    assert images.labels.tolist() == [(i * 2) % 3 for i in order] and images.num_classes == 3
    first = np.asarray(Image.open(published / "val" / "images" / f"val_{order[0]}.JPEG"))
    np.testing.assert_array_equal((images.pixels[0] * 255).round().permute(1, 2, 0).numpy(), first)
    assert load_images("ImageFolder", published).sha256 == images.sha256
    assert len(load_training_images("TinyImageNet", published).labels) == 3


def test_annotations_that_do_not_fit_are_refused(tiny):
    file = tiny / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    file.write_text("val_0.JPEG\tn01\nval_1.JPEG\tn09\n")
    with pytest.raises(UnusableInput, match="in one of them only: n02, n03, n09"):
        load_images("TinyImageNet", tiny)
    file.write_text("val_0.JPEG n01\n")
    with pytest.raises(UnusableInput, match=r"val_annotations.txt: expected lines"):
        load_images("TinyImageNet", tiny)
