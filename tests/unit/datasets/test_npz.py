"""Images in .npz files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from guard_plugin.datasets import load_training_images
from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.evaluation import load_images
from tests.hostile import Hostile

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 7


def save(tmp_path, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return str(tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("stored", "channels"),
    [
        (IMAGES, 3),
        (IMAGES.transpose(0, 2, 3, 1), 3),
        (IMAGES[:, 0], 1),
        (IMAGES[:, :1], 1),
        (IMAGES[:, 0, :, :, None], 1),
        (IMAGES / 255, 3),
        ((IMAGES / 255).astype(">f4"), 3),
    ],
)
def test_every_layout_becomes_channels_first_in_the_files_order(tmp_path, stored, channels):
    images = load_images(save(tmp_path, images=stored, labels=LABELS))
    expected = torch.from_numpy((IMAGES[:, :channels] / 255).astype(np.float32))
    torch.testing.assert_close(images.pixels, expected, rtol=0, atol=1e-7)
    assert images.pixels.is_contiguous() and images.labels.tolist() == LABELS.tolist() and images.num_classes == 7


def test_a_file_in_the_data_folder_is_found(tmp_path):
    path = save(tmp_path, images=IMAGES, labels=LABELS)
    few = load_images("mine.npz", tmp_path, n_examples=3)
    assert torch.equal(few.pixels, load_images(path).pixels[:3]) and few.num_classes == 7
    with pytest.raises(UnusableInput, match="no such file"):
        load_images("yours.npz", tmp_path)


def test_the_number_of_classes_can_be_given_where_the_highest_is_missing(tmp_path):
    path = save(tmp_path, images=IMAGES, labels=LABELS)
    images = load_images(path, num_classes=10)
    assert images.num_classes == 10 and images.sha256 == load_images(path).sha256
    with pytest.raises(UnusableInput, match="expected --num-classes >= 7, the highest label . 1, got 6"):
        load_images(path, num_classes=6)


@pytest.mark.parametrize(
    ("classes", "n", "words"),
    [
        (10, 50, "1 of 10 classes, and 90 %"),
        (10, 300, "3 of 10 classes, and 70 %"),
        (2, 500, "1 of 2 classes, and 50 %"),
    ],
)
def test_the_first_of_images_that_are_sorted_by_class_are_refused(tmp_path, classes, n, words):
    """They are another task: their accuracy says nothing of all classes."""
    images, labels = np.zeros((1000, 4, 4), dtype=np.uint8), np.arange(1000) % classes
    by_class = save(tmp_path, images=images, labels=np.sort(labels))
    with pytest.raises(
        UnusableInput, match=f"the {n} examples .*images to show its classes as all 1000 do, got {words}"
    ):
        load_images(by_class, n_examples=n)
    assert len(load_images(by_class).labels) == 1000
    for order in (labels, *(np.random.RandomState(seed).permutation(labels) for seed in range(20))):
        shuffled = save(tmp_path, images=images, labels=order)
        for few in (1, 5, 20, n):
            assert load_images(shuffled, n_examples=few).labels.tolist() == order[:few].tolist()


def test_a_val_split_cut_off_from_training_images_that_are_sorted_by_class_is_refused(tmp_path):
    arrays = {"x_test": IMAGES, "y_test": LABELS, "x_train": np.zeros((500, 4, 4), dtype=np.uint8)}
    path = save(tmp_path, y_train=np.arange(500) // 50, **arrays)
    with pytest.raises(UnusableInput, match="the 50 examples .*x_train .*got 1 of 10 classes.*Shuffle"):
        load_images(path, split="val")
    assert len(load_training_images(path).labels) == 500


@pytest.mark.parametrize("column", [False, True])
def test_keras_names_give_the_splits(tmp_path, column):
    labels = (LABELS[:, None] if column else LABELS).astype(np.uint8)
    path = save(tmp_path, x_train=IMAGES, y_train=labels, x_test=IMAGES[:4], y_test=labels[:4])
    found = {split: load_images(path, split=split) for split in ("train", "val", "test")}
    assert [len(images.labels) for images in found.values()] == [18, 2, 4]
    assert found["val"].labels.tolist() == LABELS[18:].tolist()
    assert {images.num_classes for images in found.values()} == {7}
    assert len(load_training_images(path).labels) == 20


def test_images_and_labels_are_the_test_split_only(tmp_path):
    path = save(tmp_path, images=IMAGES, labels=LABELS)
    with pytest.raises(UnusableInput, match="holds no train split here, only test"):
        load_images(path, split="train")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"photos": IMAGES}, "expected arrays images and labels, or x_test and y_test.*found photos"),
        ({"images": IMAGES, "labels": LABELS[:5]}, "20 images and 5 labels"),
        ({"images": IMAGES, "labels": LABELS / 2}, "integers of shape"),
        ({"images": IMAGES, "labels": LABELS - 1}, "got values from -1"),
        ({"images": IMAGES / 1.0, "labels": LABELS}, r"pixels in \[0, 1\]"),
        ({"images": np.full((20, 4, 4), np.nan), "labels": LABELS}, r"pixels in \[0, 1\]"),
        ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "expected uint8, or floating point"),
        ({"images": IMAGES[:, :, :, :3], "labels": LABELS}, "could be either"),
        ({"images": IMAGES[:, :2], "labels": LABELS}, r"1 or 3 channels, got \(20, 2, 6, 5\)"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "found none"),
        ({"images": IMAGES.astype("U3"), "labels": LABELS}, "cannot be read as an array of numbers"),
    ],
)
def test_other_contents_are_refused(tmp_path, arrays, words):
    with pytest.raises(UnusableInput, match=words):
        load_images(save(tmp_path, **arrays))


def test_damaged_files_are_refused(tmp_path):
    path = Path(save(tmp_path, images=IMAGES, labels=LABELS))
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMPI")):
        path.write_bytes(content)
        with pytest.raises(UnusableInput, match=r"mine\.npz.* cannot be read"):
            load_images(str(path))


@pytest.mark.parametrize("key", ["images", "labels"])
def test_an_array_of_objects_executes_nothing_and_is_refused(tmp_path, key):
    arrays = {"images": IMAGES, "labels": LABELS, key: np.array([Hostile()] * 20, dtype=object)}
    path = save(tmp_path, **arrays)
    with pytest.raises(UnsafeFile, match=f"'{key}' holds Python objects"):
        load_images(path)
    assert not Path("executed").exists()
    with pytest.raises(FileExistsError):  # the file was indeed hostile: numpy runs it where it is let
        Path("executed").mkdir()
        np.load(path, allow_pickle=True)[key]


def test_a_size_behind_the_name_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="expected no size behind"):
        load_images(f"{save(tmp_path, images=IMAGES, labels=LABELS)}@64")
