"""Training as it is written today, by the packages themselves: guarded exactly, or refused by name."""

from __future__ import annotations

import json
import shlex
import textwrap

import pytest

pytestmark = pytest.mark.long

HEAD = """
import sys
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
DATA = DataLoader(TensorDataset(torch.randn(12, 3, 4, 4), torch.arange(12) % 3), 4)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 3))

"""

LIGHTNING = """
import lightning

class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()
    def forward(self, x):
        return self.net(x)
    def training_step(self, batch, index):
        return functional.cross_entropy(self(batch[0]), batch[1])
    def validation_step(self, batch, index):
        self.log("loss", functional.cross_entropy(self(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

QUIET = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
lightning.Trainer(max_epochs=2, accelerator="cpu", **QUIET).fit(Net(), DATA, DATA)
"""

ACCELERATE = """
import accelerate

def main():
    accelerator, net, criterion = accelerate.Accelerator(cpu=True), network(), nn.CrossEntropyLoss()
    net, optimizer, data = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), DATA)
    for _ in range(2):
        for x, y in data:
            with accelerator.accumulate(net):
                accelerator.backward(criterion(net(x), y))
                optimizer.step(), optimizer.zero_grad()
main()
"""

HYDRA = """
import hydra

@hydra.main(version_base=None, config_path=None)
def main(config):
    net = network()
    for _ in range(config.epochs):
        for x, y in DATA:
            nn.CrossEntropyLoss()(net(x), y).backward()

if __name__ == "__main__":
    main()
"""

CLICK = """
import click

@click.command()
@click.option("--epochs", type=int)
def main(epochs):
    net = network()
    for _ in range(epochs):
        for x, y in DATA:
            nn.CrossEntropyLoss()(net(x), y).backward()
main()
"""

DEFAULT_DEVICE = """
def main():
    torch.set_default_device("cpu")
    net = network()
    for _ in range(2):
        for x, y in DATA:
            functional.cross_entropy(net(x), y).backward()
main()
"""

WORKERS = """
def main():
    net = network()
    for _ in range(2):
        for x, y in DataLoader(DATA.dataset, 4, num_workers=2):
            nn.CrossEntropyLoss()(net(x), y).backward()
if __name__ == "__main__":
    main()
"""

WAYS = {
    "lightning": (LIGHTNING, ()),
    "accelerate": (ACCELERATE, ()),
    "hydra": (HYDRA, ("+epochs=2", "hydra.run.dir=hydra")),
    "click": (CLICK, ("--epochs", "2")),
    "torch, a default device": (DEFAULT_DEVICE, ()),
    "torch, workers": (WORKERS, ()),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_observed_and_guarded_exactly(guard_process, tmp_path, way):
    pytest.importorskip(way.split(",")[0])
    body, arguments = WAYS[way]
    (tmp_path / "main.py").write_text(HEAD + textwrap.dedent(body))
    done = guard_process("observe", "--json", "seen.json", "main.py", *arguments, PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "--expect 6" in seen["command"], done.stderr
    done = guard_process(*shlex.split(seen["command"])[1:], PYTHONWARNINGS="ignore")
    assert done.returncode == 0 and "6 of 6 expected guarded" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "loss",
    ["LabelSmoothingCrossEntropy()(net(x), y)", "SoftTargetCrossEntropy()(net(x), functional.one_hot(y, 3).float())"],
)
def test_timms_losses_are_refused_by_name(guard_process, tmp_path, loss):
    pytest.importorskip("timm")
    body = f"""
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
    def main():
        net = network()
        for x, y in DATA:
            {loss}.backward()
    main()
    """
    (tmp_path / "main.py").write_text(HEAD + textwrap.dedent(body))
    done = guard_process("run", "--strength", "1", "--h", "0.5", "auto", "--guard", "main:main", "main.py")
    assert done.returncode == 2 and f"found {loss.split('(')[0]}" in done.stderr, done.stderr
