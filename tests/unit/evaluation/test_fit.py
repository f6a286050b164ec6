"""Whether the folders of distilled images are those of the data set's classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from guard_plugin.datasets import load_images
from guard_plugin.distilled import DistilledSet
from guard_plugin.distilled.plain import read_plain
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.fit import check_fit
from guard_plugin.spaces import Normalization

WORDS = ("bag", "boot", "top", "trouser")
SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")


def folders(root, names):
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(root / name / "0.png")
    return root


def check(tmp_path, own, theirs, num_classes):
    """As of folders on both sides; the data set is a .npz file where its names are None."""
    (distilled,) = read_plain(folders(tmp_path / "distilled", own))
    if theirs is None:
        labels = np.arange(num_classes)
        np.savez(tmp_path / "mine.npz", images=np.zeros((num_classes, 8, 8, 3), np.uint8), labels=labels)
        images = load_images("mine.npz", tmp_path)
    else:
        folders(tmp_path / "data" / "test", theirs)
        images = load_images("ImageFolder", tmp_path / "data", num_classes=num_classes)
    check_fit([distilled.with_num_classes(num_classes)], images)


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (WORDS, WORDS),
        (WORDS, None),
        (WORDS[:3], WORDS),
        (WORDS, WORDS[:3]),
        (SYNSETS, SYNSETS),
        (SYNSETS, None),
        ("0123", WORDS),
        ("0123", SYNSETS),
        ("012", WORDS),
        ("0123", None),
        ("1234", None),
        (("00", "01", "02", "03"), "0123"),
        (("class_0", "class_1", "class_2", "class_3"), "0123"),
        ("013", "0134"),
    ],
)
def test_classes_that_have_the_same_numbers_are_taken(tmp_path, own, theirs):
    check(tmp_path, own, theirs, 4)


@pytest.mark.parametrize(
    ("own", "theirs", "words"),
    [
        (("bag", "top", "trouser"), WORDS, "boot has no folder: add or rename"),
        (("bag", "boot", "shirt", "trouser"), WORDS, "top has no folder; shirt is no class: add or rename"),
        (("boot", "top", "trouser"), WORDS, "bag has no folder"),
        (SYNSETS[1:], SYNSETS, "n01440764 has no folder"),
        (WORDS, "0123", "0, 1, 2 and more has no folder; bag, boot, top and more is no class"),
        ("0123", "0134", "4 has no folder; 2 is no class"),
        ("1234", "0123", "0 has no folder; 4 is no class"),
        ("013", WORDS, "from 0 without a gap, got 0, 1, 3: add the images"),
        ("013", None, "from 0 without a gap, got 0, 1, 3: add the images"),
        ("123", None, "from 0 without a gap, got 1, 2, 3: add the images"),
        (("class_0", "class_1", "class_3"), None, "from 0 without a gap, got class_0, class_1, class_3"),
    ],
)
def test_classes_that_would_be_shifted_are_refused(tmp_path, own, theirs, words):
    with pytest.raises(UnusableInput, match=rf"{words}.*a \.npz file with images, labels .* and num_classes"):
        check(tmp_path, own, theirs, 4)


def test_a_set_that_does_not_name_its_classes_is_taken(tmp_path):
    images = load_images("ImageFolder", folders(tmp_path / "test", WORDS).parent)
    check_fit([DistilledSet(torch.rand(3, 3, 8, 8), torch.tensor([0, 2, 3]), 4, Normalization.identity(3))], images)
    assert images.class_names == WORDS
