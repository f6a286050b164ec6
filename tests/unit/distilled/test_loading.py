"""Nothing untrusted is unpickled."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.files import load_untrusted
from guard_plugin.spaces import Normalization
from tests.hostile import Hostile


@pytest.mark.parametrize("payload", [Hostile(), {"data": [[torch.zeros(1), Hostile()]]}, [np.float64(1), Hostile()]])
def test_a_hostile_pickle_executes_nothing_and_is_refused(tmp_path, payload):
    file = tmp_path / "res_DC_digits_MLP_1ipc.pt"
    torch.save(payload, file)
    with pytest.raises(UnsafeFile, match="would run code"):
        load_untrusted(file)
    assert not Path("executed").exists()


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, np.bool_])
def test_numpy_scalars_are_let_through(tmp_path, kind):
    torch.save({"accs": {"ConvNet": [kind(1)]}, "data": [torch.ones(2)]}, tmp_path / "f.pt")
    loaded = load_untrusted(tmp_path / "f.pt")
    assert loaded["accs"]["ConvNet"] == [kind(1)] and torch.equal(loaded["data"][0], torch.ones(2))


def test_arguments_beside_weights_are_let_through(tmp_path):
    arguments = argparse.Namespace(lr=0.1, model="resnet18", milestones=[1, 2])
    torch.save({"model": {"weight": torch.ones(2)}, "args": arguments}, tmp_path / "checkpoint.pth")
    assert load_untrusted(tmp_path / "checkpoint.pth")["args"] == arguments
    torch.save({"args": argparse.Namespace(path=Path())}, tmp_path / "checkpoint.pth")
    with pytest.raises(UnsafeFile):
        load_untrusted(tmp_path / "checkpoint.pth")


def test_a_numpy_scalar_of_objects_is_refused(tmp_path):
    torch.save(np.array([Hostile()], dtype=object), tmp_path / "f.pt")
    with pytest.raises(UnsafeFile):
        load_untrusted(tmp_path / "f.pt")
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_what_torch_did_not_write_is_refused(tmp_path, content):
    (tmp_path / "f.pt").write_bytes(content)
    with pytest.raises((UnusableInput, UnsafeFile)):
        load_untrusted(tmp_path / "f.pt")
    with pytest.raises(UnusableInput, match="no such file"):
        load_untrusted(tmp_path / "nowhere.pt")


UNIT = Normalization((0.0,), (1.0,))


def test_normalization_goes_both_ways():
    normalization = Normalization((0.5, 0.25), (0.5, 0.1))
    pixels = torch.rand(3, 2, 4, 4)
    inputs = normalization.to_input(pixels)
    torch.testing.assert_close(inputs[:, 1], (pixels[:, 1] - 0.25) / 0.1)
    torch.testing.assert_close(normalization.to_pixels(inputs), pixels)
    with pytest.raises(UnusableInput, match=r"images of 2 channel\(s\), got shape \(3, 1, 4, 4\)"):
        normalization.to_input(pixels[:, :1])
    with pytest.raises(UnusableInput, match="> 0"):
        Normalization((0.0,), (0.0,))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64), "n >= 1"),
        (torch.zeros(2, 2, 2), torch.tensor([0, 1]), r"got shape \(2, 2, 2\)"),
        (torch.full((1, 1, 2, 2), torch.nan), torch.tensor([0]), "not finite"),
        (torch.zeros(2, 1, 2, 2), torch.tensor([0]), r"labels of shape \(1,\) for 2"),
        (torch.zeros(2, 1, 2, 2), torch.tensor([0, 3]), r"in \[0, 3\), got 0 to 3"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2, 4), r"\(n, 3\)"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(images, labels, message):
    with pytest.raises(UnusableInput, match=message):
        DistilledSet(images, labels, 3, UNIT)


def test_soft_labels_and_images_per_class():
    distilled = DistilledSet(torch.randn(6, 1, 2, 2) * 5, torch.full((6, 3), 1 / 3), 3, UNIT)
    assert distilled.images_per_class == 2
    assert distilled.pixels().min() >= 0 and distilled.pixels().max() <= 1
