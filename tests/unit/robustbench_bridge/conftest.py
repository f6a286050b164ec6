import pytest
import torch
from torch import nn


@pytest.fixture
def quick_autoattack(monkeypatch):
    """The standard AutoAttack with fewer steps and queries."""
    pyautoattack = pytest.importorskip("pyautoattack")
    standard = pyautoattack.AutoAttack._set_version

    def quick(self, version="standard"):
        standard(self, version)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 5
        self.square.n_queries = 20

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", quick)
    return pyautoattack


@pytest.fixture
def network():
    """Ten classes; of ``images``, some fall at eps 3/255 and some do not."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 32), nn.Tanh(), nn.Linear(32, 10)).eval()


@pytest.fixture
def images(network):
    torch.manual_seed(1)
    pixels = torch.rand(24, 3, 8, 8)
    labels = network(pixels).argmax(1)
    # One that is wrong to begin with.
    labels[0] = (labels[0] + 1) % 10
    return pixels, labels
