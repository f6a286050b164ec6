import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from guard_plugin.datasets import images_from_tensors, load_training_images
from guard_plugin.datasets.image_set import check_labels
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import load_images


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path):
    """A tiny MNIST in torchvision's layout: the first pixel of training image i is i."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", 40), ("t10k", 7)):
        images = np.zeros((n, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(n)
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(n) % 10)
    return tmp_path


def test_digits_splits_partition_the_data():
    parts = [load_images("digits", split=split) for split in ("train", "val", "test")]
    assert [len(part.labels) for part in parts] == [1000, 297, 500]
    order = np.random.RandomState(0).permutation(1797)
    original = load_digits()
    pixels = torch.cat([part.pixels for part in parts])
    assert pixels.dtype == torch.float32 and pixels.shape == (1797, 1, 8, 8)
    np.testing.assert_array_equal(pixels[:, 0].numpy() * 16, original.images[order])
    np.testing.assert_array_equal(torch.cat([part.labels for part in parts]).numpy(), original.target[order])


def test_the_first_examples_are_taken_and_fingerprinted():
    few, all_of_them = load_images("digits", n_examples=20), load_images("digits")
    assert torch.equal(few.pixels, all_of_them.pixels[:20])
    assert few.sha256 == load_images("digits", n_examples=20).sha256 != all_of_them.sha256


@pytest.mark.parametrize(("split", "first", "n"), [("train", 0, 36), ("val", 36, 4), ("test", 0, 7)])
def test_torchvision_splits(mnist, split, first, n):
    images = load_images("MNIST", mnist, split)
    assert images.pixels.shape == (n, 1, 28, 28) and images.num_classes == 10
    assert torch.equal(images.pixels[:, 0, 0, 0], torch.arange(first, first + n) / 255)
    assert torch.equal(images.labels, torch.arange(first, first + n) % 10)


def test_colour_layouts_become_channels_first(tmp_path, monkeypatch):
    """torchvision holds CIFAR as (n, height, width, channels) with a list of labels, SVHN as channels first."""
    values = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(20) % 10
    cifar = SimpleNamespace(data=np.ascontiguousarray(values.transpose(0, 2, 3, 1)), targets=labels.tolist())
    monkeypatch.setattr("torchvision.datasets.CIFAR10", lambda root, train, download: cifar)
    svhn = SimpleNamespace(data=values, labels=labels)
    monkeypatch.setattr("torchvision.datasets.SVHN", lambda root, split, download: svhn)
    first, second = load_images("CIFAR10", tmp_path), load_images("SVHN", tmp_path)
    np.testing.assert_array_equal((first.pixels * 255).round().numpy(), values)
    assert torch.equal(first.pixels, second.pixels) and torch.equal(first.labels, second.labels)
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("MNIST", "MNIST/raw"),
        ("FashionMNIST", "FashionMNIST/raw"),
        ("CIFAR10", "cifar-10-batches-py"),
        ("CIFAR100", "cifar-100-python"),
        ("SVHN", "test_32x32.mat"),
    ],
)
def test_missing_files_are_named_and_nothing_is_downloaded(tmp_path, dataset, expected):
    with pytest.raises(UnusableInput, match=f"expected .*{expected}.*{tmp_path}.*Nothing is downloaded"):
        load_images(dataset, tmp_path)
    assert not list(tmp_path.rglob("*.gz"))
    with pytest.raises(UnusableInput, match="is no folder"):
        load_images(dataset, tmp_path / "missing")
    with pytest.raises(UnusableInput, match="none was given"):
        load_images(dataset)


def test_hosts_train_on_all_of_torchvisions_training_images(mnist):
    whole = load_training_images("MNIST", mnist)
    parts = [load_images("MNIST", mnist, split) for split in ("train", "val")]
    assert torch.equal(whole.pixels, torch.cat([part.pixels for part in parts])) and len(whole.labels) == 40
    assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
    assert len({whole.sha256, *(part.sha256 for part in parts)}) == 3
    assert load_training_images("digits").sha256 == load_images("digits", split="train").sha256
    with pytest.raises(UnusableInput, match="unknown data set"):
        load_training_images("imagenet21")


@pytest.mark.parametrize("n", [0, -3, 501])
def test_impossible_numbers_of_examples_are_refused(n):
    with pytest.raises(UnusableInput, match=f"from 1 to 500.*got {n}"):
        load_images("digits", n_examples=n)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UnusableInput, match="digits, MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN"):
        load_images("imagenet21")
    with pytest.raises(UnusableInput, match="train, val, test"):
        load_images("digits", split="dev")


def test_missing_packages_name_their_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UnusableInput, match=r"guard-plugin\[demo\]"):
        load_images("digits")
    with pytest.raises(UnusableInput, match=r"guard-plugin\[bench\]"):
        load_images("MNIST", tmp_path)


def test_own_tensors_are_checked():
    pixels, labels = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 1, 0])
    assert images_from_tensors(pixels, labels, 3).num_classes == 3
    with pytest.raises(UnusableInput, match="pixels in"):
        images_from_tensors(pixels * 255, labels)
    with pytest.raises(UnusableInput, match="labels"):
        images_from_tensors(pixels, labels[:4])
    with pytest.raises(UnusableInput, match="from 1 to 5"):
        images_from_tensors(pixels, labels, 6)


def test_the_first_of_own_tensors_that_are_sorted_by_class_are_refused():
    pixels, labels = torch.rand(500, 1, 2, 2), torch.arange(500) // 50
    labels[labels == 9] = 10**12  # any number may name a class here
    with pytest.raises(UnusableInput, match="50 examples .*the given tensors .*got 1 of 10 classes, .*Shuffle"):
        images_from_tensors(pixels, labels, 50)
    order = torch.randperm(500)
    assert torch.equal(images_from_tensors(pixels[order], labels[order], 50).labels, labels[order][:50])


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 10]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])]
)
def test_unusable_labels_are_refused(labels):
    with pytest.raises(UnusableInput, match="labels"):
        check_labels(labels, 2, 10)
