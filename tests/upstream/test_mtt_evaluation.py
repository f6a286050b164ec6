"""What MTT and TESLA distil into is benchmarked as they evaluate it: the clones in GUARD_HOSTS are the oracles."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from guard_plugin.students.augmentation import DSA_STRATEGY, augment
from tests.upstream.conftest import SHARED, materialize

HOSTS = Path(os.environ.get("GUARD_HOSTS", "/nowhere"))
MTT, TESLA, DC = HOSTS / "mtt-distillation", HOSTS / "tesla", HOSTS / "DatasetCondensation"

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        not (MTT.is_dir() and TESLA.is_dir() and DC.is_dir()),
        reason="GUARD_HOSTS names no folder with clones of mtt-distillation, tesla, DatasetCondensation",
    ),
]

# By images per class: one step an epoch from ten images, and they teach little.
EPOCHS, NETWORKS, RATE = {1: 200, 10: 30}, 5, 0.05

# Real images in the place of distilled ones, in the host's files; then the host's own evaluation of them.
HOSTS_EVALUATION = f"""
import os, sys, types, torch
from torch.nn import functional as F
from utils import get_dataset, get_network, evaluate_synset, ParamDiffAug
torch.set_num_threads(1), torch.manual_seed(0)
data, run, arch, ipc = *sys.argv[1:4], int(sys.argv[4])
dsa, zca, soft = (word == "True" for word in sys.argv[5:])
args = types.SimpleNamespace(device="cpu", lr_net={RATE}, batch_train=256, dataset="CIFAR10",
                             epoch_eval_train={EPOCHS}[ipc], zca=zca, teacher_label=soft, dc_aug_param=None,
                             dsa=dsa, dsa_strategy={DSA_STRATEGY!r}, dsa_param=ParamDiffAug())
channel, size, classes, _, _, _, train, _, testloader, *_ = get_dataset("CIFAR10", data, args=args)
everything = [train[i] for i in range(len(train))]
chosen = [image for c in range(10) for image in [x for x, y in everything if int(y) == c][:ipc]]
images, labels = torch.stack(chosen), torch.arange(10).repeat_interleave(ipc)
labels = 0.8 * F.one_hot(labels, 10) + 0.02 if soft else labels
os.makedirs(run)
torch.save(images, run + "/images_best.pt"), torch.save(labels, run + "/labels_best.pt")
torch.save(torch.tensor({RATE}), run + "/lr_best.pt")
if zca:
    torch.save(args.zca_trans.inverse_transform(images), run + "/images_zca_0.pt")
for k in range({NETWORKS}):
    net = get_network(arch, channel, classes, size)
    print("ACCURACY", evaluate_synset(k, net, images, labels, testloader, args)[2])
"""

OUR_EVALUATION = f"""
import dataclasses, json, pathlib, sys
from guard_adapters.trajectory_files import read_trajectory_sets
from guard_plugin.evaluation import RECIPES, benchmark_distilled
data, run, arch, dsa, out, epochs = sys.argv[1:]
sets = read_trajectory_sets(pathlib.Path(run))
recipe = dataclasses.replace(RECIPES[sets[0].recipe], epochs=int(epochs) + 1)
recipe = recipe if dsa == "True" else dataclasses.replace(recipe, augmentation=None)
finished = benchmark_distilled(sets, dataset="CIFAR10", data_dir=data, arch=arch, attacks="fgsm",
                               eps=["2/255"], seeds={NETWORKS}, out=pathlib.Path(out), subject={{}}, recipe=recipe)
print(json.dumps(finished.results))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    materialize("cifar10", folder, train=100, test=50)
    return folder


def python(code: str, *arguments: object, environment: dict[str, str], host: Path | None = None) -> str:
    path = f"{SHARED / 'offline'}:{host}" if host else str(SHARED / "offline")
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("host", "arch", "ipc", "dsa", "zca", "soft"),
    [
        (MTT, "ConvNetW32", 10, True, False, False),
        (MTT, "ConvNetW32", 10, False, False, False),
        (MTT, "ConvNetW32", 10, True, True, False),
        # TESLA has no narrower network. Its --teacher_label makes soft labels.
        (TESLA, "ConvNet", 1, True, False, False),
        (TESLA, "ConvNet", 10, True, False, False),
        (TESLA, "ConvNet", 10, True, True, True),
    ],
    ids=["MTT, DSA", "MTT", "MTT, DSA, ZCA", "TESLA, IPC 1, DSA", "TESLA, DSA", "TESLA, DSA, ZCA, soft labels"],
)
def test_students_are_as_good_as_the_hosts(data, tmp_path, environment, host, arch, ipc, dsa, zca, soft):
    run = tmp_path / "logged_files" / "CIFAR10" / "run"
    asked = (data, run, arch, ipc, dsa, zca, soft)
    hosts = python(HOSTS_EVALUATION, *asked, environment=environment, host=host)
    theirs = [float(line.split()[1]) for line in hosts.splitlines() if line.startswith("ACCURACY")]
    asked = (data, run, arch, dsa, tmp_path / "out", EPOCHS[ipc])
    results = json.loads(python(OUR_EVALUATION, *asked, environment=environment))
    ours = results["accuracy"]["clean"]["per_seed"]
    protocol = results["protocol"]
    assert protocol["normalization"]["name"] == ("zca" if zca else "per channel")
    assert protocol["recipe"]["learning_rate"] == pytest.approx(RATE)
    assert protocol["recipe"]["learning_rate_source"] == "distilled set"
    print("ours", statistics.mean(ours), ours, "theirs", statistics.mean(theirs), theirs)
    # Chance is 0.1: they have learned, if only a little from one image per class.
    assert min(statistics.mean(ours), statistics.mean(theirs)) > (0.105 if ipc == 1 else 0.2)
    spread = (statistics.variance(ours) + statistics.variance(theirs)) / NETWORKS
    assert abs(statistics.mean(ours) - statistics.mean(theirs)) <= 4 * spread**0.5 + 0.01, (ours, theirs)


HOSTS_AUGMENTATION = """
import sys, torch
from utils import DiffAugment, ParamDiffAug
images, param = torch.load(sys.argv[1]), ParamDiffAug()
out = {}
for strategy in sys.argv[3:]:
    for seed in range(12):
        torch.manual_seed(seed)
        out[strategy, seed] = DiffAugment(images, strategy, param=param)
torch.save(out, sys.argv[2])
"""


# DC resamples with align_corners=False, which on square images is the same.
@pytest.mark.parametrize("host", [MTT, DC])
@pytest.mark.parametrize("shape", [(16, 3, 32, 32), (33, 3, 28, 28), (5, 1, 9, 7)])
def test_augmentation_is_the_hosts_for_the_same_seed(tmp_path, environment, shape, host):
    if host == DC and shape[2] != shape[3]:
        pytest.skip("DC has square images alone")
    images = torch.randn(shape)
    torch.save(images, tmp_path / "in.pt")
    strategies = [*DSA_STRATEGY.split("_"), DSA_STRATEGY]
    python(HOSTS_AUGMENTATION, tmp_path / "in.pt", tmp_path / "out.pt", *strategies, environment=environment, host=host)
    for (strategy, seed), theirs in torch.load(tmp_path / "out.pt").items():
        torch.manual_seed(seed)
        torch.testing.assert_close(augment(images, strategy), theirs, rtol=1e-5, atol=2e-5, msg=f"{strategy} {seed}")
