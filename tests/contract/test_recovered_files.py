"""What SRe2L, CDA and our baselines of their shape recover, is read as the host means it."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from guard_adapters.recovered_files import read_recovered
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_tensor

from guard_plugin.distilled import subject_of
from guard_plugin.errors import UnusableInput


def write(folder, classes=10, ipc=2, size=(8, 8), channels=1, digits=3):
    shape = size if channels == 1 else (*size, 3)
    for c in range(classes):
        place = folder / f"new{c:0{digits}d}"
        place.mkdir(parents=True)
        for i in range(ipc):
            pixels = np.random.default_rng(100 * c + i).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"class{c:0{digits}d}_id{i:03d}.jpg")
    return folder


@pytest.fixture
def recovered(tmp_path):
    return write(tmp_path / "set")


@pytest.mark.parametrize(("channels", "size", "digits"), [(3, (32, 24), 3), (3, (8, 8), 5)])
def test_images_are_those_of_torchvisions_folder(tmp_path, channels, size, digits):
    """In its order, of which stored soft labels speak, also with more than nine classes and a thousand numbers."""
    folder = write(tmp_path / "set", classes=11, size=size, channels=channels, digits=digits)
    place = folder / f"new{3:0{digits}d}"
    for number in (1000, 101):
        shutil.copy(place / f"class{3:0{digits}d}_id000.jpg", place / f"class{3:0{digits}d}_id{number}.jpg")
    (folder / "new000.txt").write_text("beside the folders")
    (one,) = read_recovered(folder)
    theirs = ImageFolder(str(folder), transform=to_tensor)
    assert torch.equal(one.images, torch.stack([image for image, _ in theirs]))
    assert one.labels.tolist() == theirs.targets
    assert [str(file) for file in one.files] == [file for file, _ in theirs.samples]
    assert (one.num_classes, one.recipe, one.dataset, one.arch) == (11, "sre2l", None, None)
    assert one.input_spaces == {}  # no data set of 11 classes


def test_grey_images_have_one_channel(recovered):
    (one,) = read_recovered(recovered)
    expected = np.asarray(Image.open(recovered / "new001" / "class001_id000.jpg")) / 255
    np.testing.assert_allclose(one.images[2, 0].numpy(), expected, atol=1e-6)
    assert one.images.shape == (20, 1, 8, 8)
    assert torch.equal(one.pixels(), one.images)


@pytest.mark.parametrize(
    ("classes", "channels", "dataset", "mean", "std", "recipe"),
    [
        # squeeze_cifar.py, tiny-imagenet's train_kd.py, and our baselines' common/data.py.
        (100, 3, "CIFAR100", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "sre2l-cifar"),
        (200, 3, "TinyImageNet", (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262), "sre2l-tiny"),
        (10, 1, "FashionMNIST", (0.2861,), (0.3530,), "sre2l"),
    ],
)
def test_once_the_data_set_is_known_images_are_normalised_as_the_host_does(
    tmp_path, classes, channels, dataset, mean, std, recipe
):
    (one,) = read_recovered(write(tmp_path / "set", classes=classes, ipc=1, channels=channels))
    known = one.for_dataset(dataset)
    shape = (1, channels, 1, 1)
    expected = (one.images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    torch.testing.assert_close(known.images, expected)
    torch.testing.assert_close(known.pixels(), one.images, rtol=0, atol=1e-6)
    assert (known.dataset, known.for_dataset("digits"), known.recipe) == (dataset, known, recipe)


def test_a_data_set_that_they_cannot_be_of_is_refused(recovered):
    (one,) = read_recovered(recovered)
    with pytest.raises(UnusableInput, match="MNIST, FashionMNIST, digits; got 'CIFAR10'"):
        one.for_dataset("CIFAR10")


def test_recovered_images_are_not_whitened(recovered):
    (one,) = read_recovered(recovered)
    for space in (one.normalization, one.for_dataset("digits").normalization):
        assert space.decided(False) is space
        with pytest.raises(UnusableInput, match="did not whiten"):
            space.decided(True)


def test_subject_of_a_few_and_of_many(tmp_path, recovered):
    subject = subject_of("sre2l", {recovered: read_recovered(recovered)})
    shell = r"cd {} && sha256sum */*.jpg | sed 's|  .*/|  |' | sha256sum"
    printed = subprocess.run(shell.format(recovered), shell=True, capture_output=True, text=True, check=True).stdout
    assert subject["sha256"] == printed.split()[0]
    assert len(subject["files"]) == 20 and subject["ipc"] == 2
    many = write(tmp_path / "many", ipc=3)
    subject = subject_of("sre2l", {many: read_recovered(many)})
    assert subject["n_files"] == 30 and "files" not in subject
    (many / "new009" / "class009_id002.jpg").unlink()
    assert subject_of("sre2l", {many: read_recovered(many)})["sha256"] != subject["sha256"]


def image(size=(8, 8), mode="L"):
    return lambda file: Image.new(mode, size).save(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda at: shutil.rmtree(at / "new004"), "after 4 of them new004, found new005"),
        (lambda at: (at / "best").mkdir(), "found .*best"),
        (lambda at: [file.unlink() for file in (at / "new004").iterdir()], "in .*new004, found none"),
        (lambda at: image()(at / "new004" / "extra.jpg"), "found extra.jpg"),
        (lambda at: image()(at / "new004" / "class005_id000.jpg"), "found class005_id000.jpg"),
        (lambda at: image()(at / "new004" / "grid.PNG"), "found grid.PNG"),
        (lambda at: image((9, 8))(at / "new004" / "class004_id001.jpg"), r"\(8, 8, 1\) in .* and \(8, 9, 1\)"),
        (lambda at: image(mode="RGB")(at / "new004" / "class004_id001.jpg"), r"one size and kind, .*\(8, 8, 3\)"),
        (lambda at: image(mode="CMYK")(at / "new004" / "class004_id001.jpg"), "got mode CMYK"),
        (lambda at: (at / "new004" / "class004_id001.jpg").write_text("none"), "cannot be read as a JPEG"),
    ],
)
def test_what_no_host_writes_is_refused(recovered, change, words):
    change(recovered)
    with pytest.raises(UnusableInput, match=words):
        read_recovered(recovered)


def test_a_format_in_disguise_is_refused(recovered):
    file = recovered / "new004" / "class004_id001.jpg"
    Image.new("L", (8, 8)).save(file, format="PNG")
    with pytest.raises(UnusableInput, match="cannot be read as a JPEG"):
        read_recovered(recovered)


def test_other_places_are_refused(tmp_path, recovered):
    (tmp_path / "empty").mkdir()
    for path, words in (
        (tmp_path / "empty", "found none"),
        (tmp_path, "EXP_NAME; found .*empty"),
        (recovered / "new000" / "class000_id000.jpg", "which is no folder"),
    ):
        with pytest.raises(UnusableInput, match=words):
            read_recovered(path)
