"""The installed robustbench, through the bridge, on small made-up data. Where it cannot be loaded, nothing runs."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import guard_plugin as guard
from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge import repaired_robustbench, write_model_info
from guard_plugin.versions import strict_zip

try:
    with repaired_robustbench():
        pass
except UnusableInput as reason:
    pytest.skip(f"robustbench cannot be loaded: {reason}", allow_module_level=True)

N = 16


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    connect = socket.socket.connect

    def local(self, address):
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"the network was used: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.fixture
def model():
    """The class is the colour channel with the highest mean, in steps: ten logits, of which three count."""
    linear = nn.Linear(3, 10)
    with torch.no_grad():
        linear.weight.copy_(torch.cat([torch.eye(3), torch.zeros(7, 3)]))
        linear.bias.copy_(torch.tensor([0.0] * 3 + [-1.0] * 7))
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()


def coloured(labels, size=32):
    """Images whose channel of the label is brighter by 20/255; the last one is labelled wrongly."""
    values = np.full((len(labels), size, size, 3), 100, dtype=np.uint8)
    for image, label in strict_zip(values, labels):
        image[..., label] += 20
    return values


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A CIFAR-10 of 16 images, all classified rightly but the last one."""
    labels = np.arange(N) % 3
    values = coloured(labels)

    class CIFAR10:
        def __init__(self, root, train, transform=None, download=False):
            if download:
                raise AssertionError("a download was asked for")
            self.data, self.targets = values, [*labels[:-1].tolist(), 9]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", CIFAR10)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Square with few queries: on a model whose gradient is exact, the other attacks decide."""
    import pyautoattack

    standard = pyautoattack.AutoAttack._set_version

    def set_version(self, version="standard"):
        standard(self, version)
        self.square.n_queries = 20
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 10

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", set_version)
    return pyautoattack


def test_a_fresh_process_imports_it_and_is_left_as_it_was(environment):
    code = """
import logging, os, socket, sys

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")

def connect(*args):
    raise AssertionError("the network was used")

socket.socket.connect = connect
from guard_plugin.robustbench_bridge import repaired_robustbench

before = {name for name in ("autoattack", "autoattack.state", "pkg_resources") if name in sys.modules}
with repaired_robustbench(seed=0) as (module, repairs):
    import robustbench
    import robustbench.eval
    from autoattack import AutoAttack

    assert robustbench is module
    inside = robustbench.eval.AutoAttack, robustbench.data._clean_dataset_loaders.copy()
    names = [repair.name for repair in repairs]
    assert "autoattack" in names and "AutoAttack" in names and all(repair.why for repair in repairs)
after = {name for name in ("autoattack", "autoattack.state", "pkg_resources") if name in sys.modules}
assert after - {"pkg_resources"} == before - {"pkg_resources"}
assert robustbench.eval.AutoAttack is not inside[0]
loaders = robustbench.data._clean_dataset_loaders
cifar = robustbench.data.BenchmarkDataset.cifar_10
assert loaders[cifar] is robustbench.data.load_cifar10 is not inside[1][cifar]
with repaired_robustbench() as (again, _):
    assert again is robustbench
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("guard_plugin: robustbench repaired in memory, AutoAttack: ") == 1 and done.stdout == ""


def test_linf_accuracy_is_that_of_the_closed_form(model, cifar, quick, capsys):
    """The brightest channel leads by 20/255: an attack of eps needs 2 eps for a tie."""
    accuracies = {
        eps: tuple(
            guard.benchmark(model, dataset="cifar10", threat_model="Linf", eps=eps, n_examples=N, data_dir=cifar)
        )
        for eps in ("9/255", "11/255")
    }
    assert accuracies == {"9/255": (15 / 16, 15 / 16), "11/255": (15 / 16, 0)}
    told = capsys.readouterr()
    assert told.out == "" and "repaired" not in told.err


class Diverged(nn.Module):
    def forward(self, pixels):
        return pixels.flatten(1)[:, :10] * torch.nan


def test_models_are_checked_as_on_our_own_path(model, cifar, quick):
    run = {"dataset": "cifar10", "threat_model": "Linf", "eps": "9/255", "n_examples": N, "data_dir": cifar}
    with pytest.raises(UnusableInput, match="finite logits"):
        guard.benchmark(Diverged().eval(), **run)
    with pytest.raises(UnusableInput, match="sums to 1"):
        guard.benchmark(nn.Sequential(model, nn.Softmax(1)).eval(), **run)
    assert guard.benchmark(model, **run).flags == ()
    blind = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).eval()
    with torch.no_grad():
        blind[1].weight.zero_()
        blind[1].bias[8] = 1
    assert guard.benchmark(blind, **run).flags[0].startswith("clean: 0.0 % is next to chance (10.0 %)")


def test_the_first_examples_are_taken_in_order(model, cifar, quick):
    run = {"dataset": "cifar10", "threat_model": "L2", "eps": 0.01, "data_dir": cifar}
    assert guard.benchmark(model, n_examples=15, **run).clean_accuracy == 1
    with pytest.raises(UnusableInput, match="from 1 to 16"):
        guard.benchmark(model, n_examples=17, **run)


def test_a_killed_evaluation_goes_on(model, cifar, quick, tmp_path):
    class Killed(Exception):
        pass

    def stop(*args):
        raise Killed

    def run(state):
        return tuple(
            guard.benchmark(
                model, dataset="cifar10", threat_model="Linf", eps="9/255", n_examples=N, data_dir=cifar,
                aa_state_path=tmp_path / state,
            )
        )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick.autoattack.SquareAttack, "perturb", stop)
        with pytest.raises(Killed):
            run("killed.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick.autoattack.APGDAttack, "perturb", stop)
        assert run("killed.json") == (15 / 16, 15 / 16)
    assert (tmp_path / "killed.json").read_text() == (run("whole.json") and (tmp_path / "whole.json").read_text())


@pytest.fixture
def cifar_c(cifar, monkeypatch):
    """A CIFAR-10-C of two kinds, with 10000 images per severity, mostly holes. Fog from severity 3 on turns all red."""
    folder = cifar / "CIFAR-10-C"
    folder.mkdir()
    labels = np.arange(N) % 3
    np.save(folder / "labels.npy", np.tile(np.append(labels[:-1], 9), 5).astype(np.uint8))
    for kind in ("fog", "snow"):
        images = np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.uint8, (50000, 32, 32, 3))
        for severity in range(5):
            red = kind == "fog" and severity >= 2
            images[10000 * severity : 10000 * severity + N] = coloured(np.zeros(N, dtype=int) if red else labels)
    with repaired_robustbench() as (robustbench, _):
        data = robustbench.data
        kinds = data.CORRUPTIONS_DICT[data.BenchmarkDataset.cifar_10]
        monkeypatch.setitem(kinds, data.ThreatModel.corruptions, ("fog", "snow"))
    return cifar


def test_corruptions_are_measured_without_an_mce(model, cifar_c, tmp_path):
    clean, corrupted = guard.benchmark(
        model, dataset="cifar10", threat_model="corruptions", n_examples=15, data_dir=cifar_c, to_disk=True,
        model_name="Mine",
    )  # fmt: skip
    # Red, the first of three colours, is right for 5 of 15: in three of the ten sets.
    assert clean == 1 and corrupted == pytest.approx((7 + 3 * 5 / 15) / 10)
    known = json.loads((tmp_path / "model_info/cifar10/corruptions/Mine.json").read_text())
    assert (known["corruptions_acc"], known["corruptions_mce"], known["eps"]) == ("80.0", None, None)


def test_files_of_corruptions_are_looked_at_before_anything_is_measured(model, cifar_c, monkeypatch):
    file = cifar_c / "CIFAR-10-C" / "snow.npy"
    with file.open("r+b") as opened:
        opened.truncate(10**6)
    monkeypatch.setattr(model, "forward", lambda pixels: pytest.fail("measured"))
    with pytest.raises(UnusableInput, match="snow.npy is damaged, incomplete .*nothing is downloaded"):
        guard.benchmark(model, dataset="cifar10", threat_model="corruptions", n_examples=15, data_dir=cifar_c)


def test_an_mce_is_there_where_alexnets_errors_are(model, cifar_c, tmp_path):
    folder = tmp_path / "model_info/cifar10/corruptions"
    folder.mkdir(parents=True)
    columns = [f"{kind},{severity}" for kind in ("fog", "snow") for severity in range(1, 6)]
    header = [[part.split(",")[i] for part in columns] for i in (0, 1)]
    rows = [["", *header[0]], ["", *header[1]], ["AlexNet", *["0.5"] * 10]]
    (folder / "unaggregated_results.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    guard.benchmark(
        model, dataset="cifar10", threat_model="corruptions", n_examples=15, data_dir=cifar_c, to_disk=True,
        model_name="Mine",
    )  # fmt: skip
    # Errors of 2/3 in three of five sets of fog, over AlexNet's 1/2; none of snow.
    assert json.loads((folder / "Mine.json").read_text())["corruptions_mce"] == "40.0"


@pytest.fixture
def imagenet(tmp_path):
    """The first three images of RobustBench's list, among folders for all of its classes."""
    with repaired_robustbench() as (robustbench, _):
        files = Path(robustbench.__file__).parent / "helper_files"
    names = (files / "imagenet_test_image_ids.txt").read_text().split()
    numbers = json.loads((files / "imagenet_class_to_id_map.json").read_text())
    for name in numbers:
        (tmp_path / "val" / name).mkdir(parents=True)
    for i, name in enumerate(names[:3]):
        # The colours of classes 0, 1, 2, whatever the true class: all wrong, but for a true class below 3.
        Image.fromarray(coloured([i], 224)[0]).save(tmp_path / "val" / name, format="PNG")
    right = [numbers[name.split("/")[0]] == i for i, name in enumerate(names[:3])]
    return tmp_path, sum(right) / 3


@pytest.fixture
def colour_model():
    """A thousand logits, of which the first three are the colour channels' means."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000)).eval()
    with torch.no_grad():
        model[2].weight.zero_()[:3].copy_(torch.eye(3))
        model[2].bias.fill_(-1)[:3] = 0
    return model


IMAGENET = {"dataset": "imagenet", "threat_model": "Linf", "eps": "4/255", "n_examples": 3}
of_data_loaders = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning", "ignore:.*fork:DeprecationWarning"
)


@of_data_loaders
def test_imagenet_is_read_by_robustbench(imagenet, colour_model, quick):
    folder, accuracy = imagenet
    run = {**IMAGENET, "data_dir": folder}
    assert guard.benchmark(colour_model, preprocessing="Res256Crop224", **run).clean_accuracy == accuracy
    with pytest.raises(UnusableInput, match="unknown preprocessing 'Res7': robustbench has Res256Crop224"):
        guard.benchmark(colour_model, preprocessing="Res7", **run)
    with pytest.raises(UnusableInput, match="'Mine' is not in RobustBench's zoo"):
        guard.benchmark(colour_model, model_name="Mine", **run)


@of_data_loaders
def test_images_and_classes_that_are_missing_or_damaged_are_named(imagenet, model, colour_model):
    run = {**IMAGENET, "data_dir": imagenet[0], "preprocessing": "Res256Crop224"}
    with pytest.raises(UnusableInput, match="expected logits for 1000 classes, got 10"):
        guard.benchmark(model, **run)
    first = next((imagenet[0] / "val").glob("*/*.JPEG"))
    first.write_bytes(b"damaged")
    with pytest.raises(UnusableInput, match=rf"cannot read it \(.*cannot identify image file .*{first.name}"):
        guard.benchmark(colour_model, **run)
    first.unlink()
    with pytest.raises(UnusableInput, match=rf"misses a file .*No such file.*{first.name}"):
        guard.benchmark(colour_model, **run)
    (imagenet[0] / "val" / "n99999999").mkdir()
    with pytest.raises(UnusableInput, match=r"of the 1000 classes in .*val, .*: 1 are none of these \(n99999999\)"):
        guard.benchmark(colour_model, **run)


def test_the_trees_of_corruptions_are_looked_at_before_anything_is_measured(imagenet, colour_model):
    run = {"dataset": "imagenet", "threat_model": "corruptions", "preprocessing": "Res224", "n_examples": 3}
    with pytest.raises(UnusableInput, match="expected .*c/ImageNet-C/shot_noise/1, and it is not there"):
        guard.benchmark(colour_model, data_dir=imagenet[0], corruptions_data_dir=imagenet[0] / "c", **run)


def test_missing_images_are_named(model, tmp_path):
    with pytest.raises(UnusableInput, match="expected .*val, and it is not there"):
        guard.benchmark(
            model, dataset="imagenet", threat_model="Linf", eps=0.1, data_dir=tmp_path, preprocessing="Res256Crop224"
        )


@pytest.mark.parametrize("existing", [None, '{"link": "l", "autoattack_acc": "1", "external": "2", "name": null}'])
@pytest.mark.parametrize(
    ("dataset", "threat_model", "accuracies", "eps", "mce"),
    [
        ("cifar10", "Linf", (0.912345, 0.4), 8 / 255, None),
        ("cifar100", "L2", (1.0, 1 / 3), 0.5, None),
        ("imagenet", "corruptions", (0.5, 0.25), None, 0.87654),
        ("imagenet", "corruptions_3d", (0.5, 0.25), None, 1.5),
    ],
)
def test_model_info_is_byte_for_byte_robustbenchs(tmp_path, existing, dataset, threat_model, accuracies, eps, mce):
    with repaired_robustbench() as (robustbench, _):
        from robustbench.utils import update_json

        data = robustbench.data
    path = tmp_path / "model_info" / dataset / threat_model.removesuffix("_3d") / "Mine.json"
    written = []
    for write in ("theirs", "ours"):
        path.unlink(missing_ok=True)
        if existing:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(existing)
        if write == "theirs":
            members = data.BenchmarkDataset(dataset), data.ThreatModel(threat_model)
            update_json(*members, "Mine", *accuracies, eps, {"corruptions_mce": mce})
        else:
            clean, robust = accuracies
            write_model_info(dataset, threat_model, "Mine", clean=clean, robust=robust, eps=eps, mce=mce)
        written.append(path.read_bytes())
    assert written[0] == written[1]
