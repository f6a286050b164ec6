"""What MTT, TESLA, FTD, DATM and our baselines of their shape write, is read as the host means it."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
from guard_adapters.normalizations import DC_DATASETS, MTT_DATASETS
from guard_adapters.trajectory_files import read_trajectory_sets

from guard_plugin.distilled import subject_of
from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.spaces import Normalization, UndecidedZca, ZcaWhitening
from tests.hostile import Hostile

CIFAR = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def save(tmp_path):
    """Save a run's tensors below ``folder``: ``save("logged_files/CIFAR10/run", images_best=..., labels_best=...)``."""

    def save(folder, **files):
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            torch.save(content, place / f"{name}.pt")
        return place

    return save


def pair(version="best", ipc=1, classes=10, side=32, prefix=""):
    return {
        f"{prefix}images_{version}": torch.randn(ipc * classes, 3, side, side),
        f"{prefix}labels_{version}": torch.arange(classes).repeat_interleave(ipc),
    }


@pytest.mark.parametrize(
    ("folder", "prefix"), [("logged_files/CIFAR10/misty-sea-7", ""), ("ema_logged_files/CIFAR10/misty-sea-7", "ema_")]
)
@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_run_is_read(save, folder, prefix, given):
    files = pair(ipc=2, prefix=prefix)
    run = save(folder, **files, **pair("5000", prefix=prefix))
    path = run if given == "folder" else run / f"{prefix}images_best.pt"
    (distilled,) = read_trajectory_sets(path)
    assert torch.equal(distilled.images, files[f"{prefix}images_best"])
    assert torch.equal(distilled.labels, files[f"{prefix}labels_best"])
    assert (distilled.dataset, distilled.arch, distilled.recipe) == ("CIFAR10", None, "mtt")
    assert (distilled.learning_rate, distilled.normalization) == (None, CIFAR)
    assert distilled.files == (run / f"{prefix}images_best.pt", run / f"{prefix}labels_best.pt")


def test_without_a_best_the_highest_iteration_is_read(save):
    run = save("logged_files/CIFAR10/run", **pair("900"), **pair("1000"))
    (distilled,) = read_trajectory_sets(run)
    assert distilled.files[0].name == "images_1000.pt"
    (distilled,) = read_trajectory_sets(run / "images_900.pt")
    assert [file.name for file in distilled.files] == ["images_900.pt", "labels_900.pt"]


def test_a_relative_path_is_enough(save, monkeypatch):
    monkeypatch.chdir(save("logged_files/CIFAR10/run", **pair()))
    assert read_trajectory_sets(Path("images_best.pt"))[0].dataset == "CIFAR10"


@pytest.mark.parametrize("given", ["folder", "file"])
def test_another_save_path_is_enough_where_the_run_lies_in_its_data_sets_folder(save, given):
    run = save("results/digits/run0", **pair())
    (distilled,) = read_trajectory_sets(run if given == "folder" else run / "images_best.pt")
    assert distilled.dataset == "digits"


@pytest.mark.parametrize(
    ("host", "name", "classes", "side", "normalization"),
    [
        ("CIFAR100", "CIFAR100", 100, 32, CIFAR),  # MTT's get_dataset gives it CIFAR-10's numbers
        ("Tiny", "TinyImageNet", 200, 64, IMAGENET),
        ("ImageNet", "ImageNet", 10, 128, IMAGENET),
        ("ImageNet", "ImageNet", 1000, 8, IMAGENET),
        ("ImageNet1K", "ImageNet", 1000, 8, IMAGENET),
    ],
)
def test_the_folder_tells_the_data_set(save, host, name, classes, side, normalization):
    (distilled,) = read_trajectory_sets(save(f"logged_files/{host}/run", **pair(classes=classes, side=side)))
    assert (distilled.dataset, distilled.num_classes, distilled.normalization) == (name, classes, normalization)


def test_dc_and_mtt_normalise_cifar100_each_in_its_own_way():
    assert DC_DATASETS["CIFAR100"].normalization != MTT_DATASETS["CIFAR100"].normalization == CIFAR


@pytest.mark.parametrize("rate", [torch.tensor(0.0123), torch.tensor([0.0123], dtype=torch.float64), 0.0123])
def test_the_learned_learning_rate_is_read(save, rate):
    run = save("logged_files/digits/run", lr_best=rate, lr_10=torch.tensor(9.0), **pair())
    (distilled,) = read_trajectory_sets(run)
    assert distilled.learning_rate == pytest.approx(0.0123)
    assert [file.name for file in distilled.files] == ["images_best.pt", "labels_best.pt", "lr_best.pt"]


def test_datms_logits_become_probabilities(save):
    logits = torch.randn(10, 10) * 4
    run = save(
        "logged_files/CIFAR10/1/ConvNetD4/run/Normal",
        images_best=torch.randn(10, 3, 32, 32),
        labels_best=logits.clone().requires_grad_(),
        lr_best=torch.tensor(0.02),
    )
    # The host's loss: SoftCrossEntropy(outputs, logits).
    outputs = torch.randn(10, 10)
    expected = -(outputs.log_softmax(1) * logits.softmax(1)).sum() / 10
    for path in (run, run.parent, run / "images_best.pt"):
        (distilled,) = read_trajectory_sets(path)
        torch.testing.assert_close(torch.nn.functional.cross_entropy(outputs, distilled.labels), expected)
        assert (distilled.arch, distilled.recipe) == ("ConvNetD4", "datm")
        assert distilled.learning_rate == pytest.approx(0.02)


def test_probabilities_are_read_as_they_are(save):
    probabilities = torch.randn(10, 10).softmax(1)
    files = {**pair(), "labels_best": probabilities}
    (distilled,) = read_trajectory_sets(save("logged_files/CIFAR10/run", **files))
    assert torch.equal(distilled.labels, probabilities)


@pytest.mark.parametrize("folder", ["logged_files/CIFAR10/run", "ema_logged_files/CIFAR10/run"])
def test_a_zca_run_is_told_by_its_unwhitened_images(save, folder):
    prefix = "ema_" if folder.startswith("ema") else ""
    run = save(folder, **pair(prefix=prefix), images_zca_100=torch.rand(10, 3, 32, 32))
    (distilled,) = read_trajectory_sets(run)
    assert distilled.normalization == ZcaWhitening(eps=0.1)
    with pytest.raises(UnusableInput, match="--no-zca"):
        distilled.normalization.decided(zca=False)
    with pytest.raises(UnusableInput, match=r"undone.*images_100\.pt"):
        read_trajectory_sets(run / "images_zca_100.pt")


def test_from_50_images_per_class_on_the_user_must_say_whether_they_are_whitened(save):
    (distilled,) = read_trajectory_sets(save("logged_files/CIFAR10/run", **pair(ipc=50)))
    space = distilled.normalization
    assert isinstance(space, UndecidedZca)
    with pytest.raises(UnusableInput, match=r"logged_files.CIFAR10.run does not tell.*--zca or --no-zca"):
        distilled.pixels()
    assert space.decided(zca=False) == CIFAR and space.decided(zca=True) == ZcaWhitening()
    (ours,) = read_trajectory_sets(save("logged_files/digits/run", **pair(ipc=50)))
    assert isinstance(ours.normalization, Normalization)


CIFAR_RUN = "logged_files/CIFAR10/run"


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("results/CIFAR10/group/run", {}, "expected a path such as logged_files/DATASET/RUN"),
        ("results/STL10/run", {}, "expected a path such as logged_files/DATASET/RUN"),
        ("logged_files/STL10/run", {}, "expected one of the data sets MNIST, .* after logged_files .*got 'STL10'"),
        ("logged_files", {}, "expected a path such as|expected one of the data sets"),
        (CIFAR_RUN, {"labels_best": None}, r"labels of images_best\.pt in .*labels_best\.pt, found no such file"),
        (CIFAR_RUN, {"images_best": None}, r"images_best\.pt or images_ITERATION\.pt in .*found neither"),
        (CIFAR_RUN, {"images_best": [1]}, "expected a tensor, got list"),
        (CIFAR_RUN, {"images_best": torch.tensor(1.0)}, "expected a tensor, got a single number"),
        (CIFAR_RUN, {"lr_best": 10**400}, "learning rate is too large"),
        (CIFAR_RUN, {"labels_best": torch.arange(9)}, r"got 10 images in .* and 9 labels in labels_best\.pt"),
        (CIFAR_RUN, {"labels_best": torch.zeros(10, 7)}, r"soft labels for 10 classes of CIFAR10, got shape \(10, 7\)"),
        (CIFAR_RUN, {"labels_best": torch.randn(10, 10)}, "probabilities .*if they are logits, take their softmax"),
        (CIFAR_RUN, {"labels_best": torch.full((10,), 0.5)}, r"class indices of shape \(n,\), or probabilities"),
        (CIFAR_RUN, {"labels_best": torch.arange(1, 11)}, r"labels in \[0, 10\), got 1 to 10"),
        (CIFAR_RUN, {"lr_best": torch.tensor(-0.1)}, "learning rate that is finite and > 0, got -0.1"),
        (CIFAR_RUN, {"lr_best": torch.tensor(torch.nan)}, "learning rate that is finite and > 0, got nan"),
        (CIFAR_RUN, {"lr_best": torch.ones(2)}, "expected one number, the learned learning rate"),
        ("logged_files/CIFAR10/1/ConvNet/run/Normal", {}, r"expected logits of shape \(n, 10\)"),
        (
            "logged_files/CIFAR10/1/ConvNet/run/Normal",
            {"labels_best": torch.full((10, 10), torch.nan)},
            "class probabilities",
        ),
        ("logged_files/ImageNet/run", {"labels_best": torch.zeros(10, 20)}, "soft labels for 10 or 1000 classes"),
    ],
)
def test_what_no_host_wrote_is_refused(save, folder, change, message):
    files = {**pair(), **change}
    run = save(folder, **{name: content for name, content in files.items() if content is not None})
    with pytest.raises(UnusableInput, match=message):
        read_trajectory_sets(run)


@pytest.mark.parametrize("unwhitened", [{}, {"images_zca_100": torch.rand(10, 3, 32, 32)}])
@pytest.mark.parametrize(
    ("images", "found"),
    [
        (lambda pixels: (pixels * 255).to(torch.uint8), "got torch.uint8"),
        (lambda pixels: (pixels * 255).to(torch.int64), "got torch.int64"),
        (lambda pixels: pixels * 255, "got values whose root mean square is 14"),
        (lambda pixels: pixels * 255 - 128, "got values whose root mean square is 7"),
    ],
)
def test_pixels_from_0_to_255_are_refused(save, images, found, unwhitened):
    run = save(CIFAR_RUN, **{**pair(), **unwhitened, "images_best": images(torch.rand(10, 3, 32, 32))})
    message = rf"images_best.pt: expected .* pixels to -2\.43 to 2\.75; {found}.*mean=\(0\.4914.*std="
    with pytest.raises(UnusableInput, match=message):
        read_trajectory_sets(run)


def test_learned_values_may_be_far_from_those_of_pixels(save):
    images = torch.randn(10, 3, 32, 32) * 9
    images[0, 0, 0, 0] = 1000
    (distilled,) = read_trajectory_sets(save(CIFAR_RUN, **{**pair(), "images_best": images.double()}))
    assert torch.equal(distilled.images, images)


def test_other_names_are_refused(save):
    run = save(CIFAR_RUN, **pair())
    with pytest.raises(UnusableInput, match=r"expected a run's folder, or a file named .* got labels_best\.pt"):
        read_trajectory_sets(run / "labels_best.pt")


@pytest.mark.parametrize("which", ["images_best", "labels_best", "lr_best"])
def test_nothing_is_unpickled(save, which):
    run = save(CIFAR_RUN, **{**pair(), which: Hostile()})
    with pytest.raises(UnsafeFile):
        read_trajectory_sets(run)
    assert not os.path.exists("executed")


def test_the_subjects_hash_is_that_of_all_files_that_were_read(save):
    run = save(CIFAR_RUN, lr_best=torch.tensor(0.02), **pair(), **pair("7"))
    subject = subject_of("mtt", {run: read_trajectory_sets(run)})
    command = "sha256sum images_best.pt labels_best.pt lr_best.pt | sha256sum"
    expected = subprocess.run(command, shell=True, cwd=run, capture_output=True, text=True, check=True).stdout.split()[
        0
    ]
    assert subject["sha256"] == expected
    assert subject["files"] == [str(run / f"{name}_best.pt") for name in ("images", "labels", "lr")]
    assert (subject["ipc"], subject["path"]) == (1, str(run))
    torch.save(torch.tensor(0.03), run / "lr_best.pt")
    assert subject_of("mtt", {run: read_trajectory_sets(run)})["sha256"] != expected


def test_the_subjects_hash_of_one_file_is_the_files(tmp_path, save):
    (distilled,) = read_trajectory_sets(save(CIFAR_RUN, **pair()))
    one = tmp_path / "other.pt"
    one.write_bytes(b"some bytes")
    untold = [type(distilled)(distilled.images, distilled.labels, 10, CIFAR)]
    subject = subject_of("dc", {one: untold})
    assert subject == {
        "kind": "distilled",
        "path": str(one),
        "sha256": hashlib.sha256(b"some bytes").hexdigest(),
        "adapter": "dc",
        "ipc": 1,
        "experiments": 1,
    }
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    (folder / "b").write_bytes(b"b")
    assert subject_of("theirs", {folder: untold})["files"] == [str(folder / "a"), str(folder / "b")]
