"""``examples/eight_bit_images.py``: the file that it writes is the distilled set, up to half of an 8-bit level."""

import runpy
import sys

import torch

from guard_plugin.distilled import read_distilled
from guard_plugin.plugins import installed_plugins
from tests.conftest import ROOT


def test_the_images_are_the_sets_own_within_black_and_white(tmp_path, monkeypatch):
    source, out = tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt", tmp_path / "images.npz"
    images, labels = torch.randn(20, 3, 32, 32), torch.arange(10).repeat_interleave(2)
    torch.save({"data": [[images, labels]]}, source)
    script = ROOT / "examples" / "eight_bit_images.py"
    monkeypatch.setattr(sys, "argv", [str(script), "dc", str(source), str(out)])
    runpy.run_path(str(script), run_name="__main__")

    hook = installed_plugins().hook
    (before,), (after,) = read_distilled(hook, "dc", source), read_distilled(hook, "plain", out)
    assert torch.equal(after.hard_labels, labels)
    expected, found = before.normalization.to_pixels(images), after.normalization.to_pixels(after.images)
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=0.5001 / 255)
