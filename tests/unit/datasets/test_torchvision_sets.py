"""torchvision's data sets for classification, by class name."""

import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.datasets import VisionDataset
from torchvision.datasets.utils import verify_str_arg

from guard_plugin.datasets import load_training_images
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import load_images

N = 20


def values_of(split, size=(8, 8, 3)):
    return np.random.default_rng(len(split)).integers(0, 256, (N, *size), dtype=np.uint8)


class Splits(VisionDataset):
    """In torchvision's shape; sorted by class."""

    names = ("train", "val")
    classes = ("a", "b", "c", "d")
    size = (8, 8, 3)

    def __init__(self, root, split="train", transform=None, download=True):
        verify_str_arg(split, "split", self.names)
        super().__init__(root)
        assert not download, "downloads"
        self.values = values_of(split, self.size)

    def __len__(self):
        return N

    def __getitem__(self, index):
        return Image.fromarray(self.values[index].squeeze()), index * 4 // N


class Trains(VisionDataset):
    """With a train argument, and no way to tell the classes."""

    def __init__(self, root, train=True, **kwargs):
        super().__init__(root)
        assert not kwargs
        self.split = "train" if train else "test"

    def __len__(self):
        return N

    def __getitem__(self, index):
        return Image.fromarray(values_of(self.split)[index]), np.int64(index % 10)


@pytest.fixture
def known(monkeypatch):
    """What makes a class torchvision's."""

    def register(kind, name):
        monkeypatch.setattr(torchvision.datasets, name, kind, raising=False)
        monkeypatch.setattr(torchvision.datasets, "__all__", (*torchvision.datasets.__all__, name))

    return register


def test_images_are_in_a_fixed_permutation_and_val_serves_as_test(tmp_path, known):
    known(Splits, "Letters")
    images = load_images("Letters", tmp_path)
    order = np.random.RandomState(0).permutation(N)
    np.testing.assert_array_equal((images.pixels * 255).round().permute(0, 2, 3, 1).numpy(), values_of("val")[order])
    assert images.labels.tolist() == [i * 4 // N for i in order] and images.num_classes == 4
    val = load_images("Letters", tmp_path, "val")
    np.testing.assert_array_equal(
        (val.pixels * 255).round().permute(0, 2, 3, 1).numpy(), values_of("train")[order[-2:]]
    )
    assert len(load_images("Letters", tmp_path, "train").labels) == N - 2
    assert len(load_training_images("Letters", tmp_path).labels) == N


def test_only_the_examples_asked_for_are_read(tmp_path, known):
    read = []

    class Watched(Splits):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    known(Watched, "Letters")
    load_images("Letters", tmp_path, n_examples=3)
    assert read == np.random.RandomState(0).permutation(N)[:3].tolist()


def test_a_val_split_beside_a_test_split_is_validation(tmp_path, known):
    class Three(Splits):
        names = ("train", "valid", "test")

    known(Three, "Letters")
    found = {split: load_images("Letters", tmp_path, split) for split in ("train", "val", "test")}
    assert {split: len(images.labels) for split, images in found.items()} == {"train": N, "val": N, "test": N}
    order = np.random.RandomState(0).permutation(N)
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        np.testing.assert_array_equal((found[split].pixels[0, 0] * 255).round(), values_of(name)[order[0]][..., 0])


def test_train_arguments_and_known_numbers_of_classes(tmp_path, known):
    known(Trains, "USPS")
    images = load_images("USPS", tmp_path)
    order = np.random.RandomState(0).permutation(N)
    np.testing.assert_array_equal((images.pixels[0, 1] * 255).round(), values_of("test")[order[0]][..., 1])
    assert images.num_classes == 10
    known(Trains, "Unheard")
    with pytest.raises(UnusableInput, match="does not tell its number of classes: give --num-classes"):
        load_images("Unheard", tmp_path)
    assert load_images("Unheard", tmp_path, num_classes=12).num_classes == 12
    with pytest.raises(UnusableInput, match="USPS has 10 classes, got --num-classes 12: leave it out"):
        load_images("USPS", tmp_path, num_classes=12)


def test_grey_images_keep_one_channel(tmp_path, known):
    class Grey(Splits):
        size = (8, 8, 1)

    known(Grey, "Letters")
    assert load_images("Letters", tmp_path).pixels.shape == (N, 1, 8, 8)
    assert load_images("Letters@4", tmp_path).pixels.shape == (N, 1, 4, 4)


def item(value):
    class Odd(Splits):
        def __getitem__(self, index):
            return value

    return Odd


IMAGE = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((IMAGE, "a"), r"expected an image and its class, an integer, got \(Image, str\).*arrange it as ImageFolder"),
        ((IMAGE, None), "has no labels for this split"),
        ((IMAGE, True), "an integer"),
        ((IMAGE, torch.zeros(4, dtype=torch.int64)), "an integer"),
        ((IMAGE, IMAGE, 1), "an integer"),
        ((torch.zeros(3, 8, 8), 1), "expected an image"),
        (IMAGE, "expected an image"),
        ((IMAGE.convert("CMYK"), 1), "mode CMYK"),
        ((IMAGE, 4), "labels of Letters >= 0 and < 4"),
        ((IMAGE, -1), "labels of Letters >= 0 and < 4"),
    ],
)
def test_what_is_no_classification_is_refused(tmp_path, known, value, words):
    known(item(value), "Letters")
    with pytest.raises(UnusableInput, match=words):
        load_images("Letters", tmp_path)


def test_several_sizes_are_refused_with_the_fix(tmp_path, known):
    class Mixed(Splits):
        def __getitem__(self, index):
            return IMAGE.resize((8 + index % 2, 8)), 0

    known(Mixed, "Letters")
    with pytest.raises(UnusableInput, match="Letters@64"):
        load_images("Letters", tmp_path)
    assert load_images("Letters@6", tmp_path).pixels.shape == (N, 3, 6, 6)


def test_an_empty_split_is_refused(tmp_path, known):
    class Empty(Splits):
        def __len__(self):
            return 0

    known(Empty, "Letters")
    with pytest.raises(UnusableInput, match="expected images in the test split of Letters, found none"):
        load_images("Letters", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EuroSAT", "no training and test splits of its own"),
        ("FakeData", "no training and test splits of its own"),
        ("Kinetics", "needs frames_per_clip"),
        ("PhotoTour", "needs name, which cannot be given"),
        ("EMNIST", "several data sets.*EMNIST-balanced"),
        ("STL01", "unknown data set 'STL01'.*close to it: STL10"),
        ("verify_str_arg", "unknown data set"),
        ("folder", "unknown data set"),
        ("MNIST@32", "expected no size behind MNIST"),
        ("STL10@0", "unknown data set"),
    ],
)
def test_what_cannot_be_measured_on_is_refused_by_name(tmp_path, name, words):
    with pytest.raises(UnusableInput, match=words):
        load_images(name, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["STL10", "KMNIST", "QMNIST", "USPS", "GTSRB", "Flowers102", "OxfordIIITPet", "DTD", "Food101", "Imagenette"],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_torchvisions_own_are_recognised_and_only_miss_their_files(tmp_path, name, split):
    with pytest.raises(UnusableInput, match=f"{name} cannot be read.*{tmp_path}.*Nothing is downloaded"):
        load_images(name, tmp_path, split)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("name", ["cifar10", "CIFAR-10", "Cifar_10"])
def test_names_are_read_in_any_case(tmp_path, name):
    with pytest.raises(UnusableInput, match="^CIFAR10 cannot be read: expected cifar-10-batches-py/ in"):
        load_images(name, tmp_path)
    with pytest.raises(UnusableInput, match="^STL10 cannot be read"):
        load_images("stl-10@32", tmp_path)


@pytest.mark.parametrize(
    ("name", "files", "damaged"),
    [
        ("CIFAR10", [f"cifar-10-batches-py/{n}" for n in ("data_batch_1", "test_batch")], "data_batch_1"),
        ("SVHN", ["train_32x32.mat", "test_32x32.mat"], "test_32x32.mat"),
        ("STL10", ["stl10_binary/train_X.bin"], "train_X.bin"),
    ],
)
def test_a_checksum_that_fails_is_not_a_missing_folder(tmp_path, name, files, damaged):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"not what torchvision has")
    module = sys.modules[getattr(torchvision.datasets, name).__module__]
    check = module.check_integrity
    with pytest.raises(UnusableInput, match=f"{name} cannot be read: .*{damaged} is there, but its checksum") as raised:
        load_images(name, tmp_path)
    assert "Nothing is downloaded" not in str(raised.value) and module.check_integrity is check


def test_damaged_files_without_a_checksum_are_not_called_missing(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0")
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0")
    with pytest.raises(UnusableInput, match="ubyte is there, but incomplete, damaged or still packed") as raised:
        load_images("MNIST", tmp_path)
    assert "Nothing is downloaded" not in str(raised.value)


def test_a_missing_package_is_not_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda file, md5: True)
    with pytest.raises(UnusableInput, match="SVHN of torchvision needs a package that is not installed: .*scipy"):
        load_images("SVHN", tmp_path)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def test_emnist_is_read_by_its_parts(tmp_path):
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (26, 28, 28))
    for prefix in ("train", "test"):
        write_idx(raw / f"emnist-letters-{prefix}-images-idx3-ubyte", images)
        write_idx(raw / f"emnist-letters-{prefix}-labels-idx1-ubyte", np.arange(1, 27))
    found = load_images("EMNIST-letters", tmp_path)
    assert found.num_classes == len(torchvision.datasets.EMNIST.classes_split_dict["letters"])
    np.testing.assert_array_equal((found.pixels[:, 0] * 255).round().numpy(), images)
    assert found.labels.tolist() == list(range(1, 27))
    with pytest.raises(UnusableInput, match="emnist-digits"):
        load_images("EMNIST-digits", tmp_path)


def test_kmnist_is_read_from_its_own_files(tmp_path):
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (N, 28, 28))
    for prefix in ("train", "t10k"):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(N) % 10)
    found = load_images("KMNIST", tmp_path, n_examples=5)
    order = np.random.RandomState(0).permutation(N)[:5]
    np.testing.assert_array_equal((found.pixels[:, 0] * 255).round().numpy(), images[order])
    assert found.labels.tolist() == (order % 10).tolist() and found.num_classes == 10
