"""Checkpoints of networks that were trained elsewhere."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.networks import build_network, checkpoint_subject, load_checkpoint

SHAPE = {"channels": 3, "num_classes": 4, "im_size": (8, 8)}


def saved(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def trained(arch="ConvNetBN"):
    """A network whose every entry differs from a new one's."""
    network = build_network(arch, **SHAPE)
    generator = torch.Generator().manual_seed(1)
    for value in network.state_dict().values():
        value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network


@pytest.mark.parametrize("form", ["bare", "model", "state_dict", "net", "parallel"])
def test_the_network_is_the_one_that_was_saved_in_eval_mode(tmp_path, form):
    network = trained().eval()
    state = nn.DataParallel(network).state_dict() if form == "parallel" else network.state_dict()
    content = state if form in ("bare", "parallel") else {form: state, "epoch": 3}
    loaded = load_checkpoint(saved(tmp_path, content), "ConvNetBN", **SHAPE)
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
    assert not any(module.training for module in loaded.modules())


def test_counters_of_batches_may_be_missing(tmp_path):
    network = trained().eval()
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    loaded = load_checkpoint(saved(tmp_path, state), "ConvNetBN", **SHAPE)
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


def changed(state, **changes):
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features.0.weight": None, "features.4.bias": None}, "2 entries are missing: features.0.weight, features.4"),
        ({"fc.weight": torch.ones(1)}, "1 entries are unexpected: fc.weight"),
        (
            {"classifier.bias": torch.ones(10)},
            r"1 entries are of another shape or kind: classifier.bias \(expected \(4,\), got \(10,\) of torch.float",
        ),
        ({"classifier.bias": torch.ones(4).long()}, r"1 entries are of another .* got \(4,\) of torch.int64"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, words):
    state = trained("ConvNet").state_dict()
    key = {name.replace("__", "."): value for name, value in changes.items()}
    with pytest.raises(UnusableInput, match=f"does not fit ConvNet for 4 classes and 3x8x8 images: {words}.*another"):
        load_checkpoint(saved(tmp_path, changed(state, **key)), "ConvNet", **SHAPE)


@pytest.mark.parametrize("arch", ["ConvNetD2", "MLP", "resnet18", "vgg11"])
def test_the_architecture_that_fits_is_told(tmp_path, arch):
    size = {**SHAPE, "im_size": (32, 32)}
    file = saved(tmp_path, {"weight": torch.ones(1)})
    if arch == "vgg11":  # half a gigabyte: the shapes are enough
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in build_network(arch, **size).state_dict().items()}
        file = saved(tmp_path, {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()})
    else:
        file = saved(tmp_path, build_network(arch, **size).state_dict())
    with pytest.raises(UnusableInput, match=f"it fits --arch {arch}"):
        load_checkpoint(file, "ConvNetD1", **size)


def test_a_file_without_weights_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="expected a state dict"):
        load_checkpoint(saved(tmp_path, {"epoch": 3}), "ConvNet", **SHAPE)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_hostile_checkpoint_executes_nothing_and_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeFile, match="would run code"):
        load_checkpoint(saved(tmp_path, {"model": trained().state_dict(), "hook": Hostile()}), "ConvNetBN", **SHAPE)
    assert not Path("executed").exists()


def test_a_checkpoint_is_described_for_the_results(tmp_path):
    file = saved(tmp_path, {"weight": torch.ones(1)})
    assert checkpoint_subject(file) == {
        "kind": "checkpoint",
        "path": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "adapter": None,
        "ipc": None,
    }
