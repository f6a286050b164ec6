"""Students of recovered images are as good as those of SRe2L's relabel_cifar.py and tiny-imagenet's train_kd.py.

The scripts run as they are, but that a small network takes the place of torchvision's ResNet-18 (``small_network``).
"""

import os
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR100

from guard_plugin.distilled import DistilledSet
from guard_plugin.spaces.usual import normalization_named
from guard_plugin.students import RECIPES, TeacherLabels, train_student
from tests.upstream.conftest import materialize, of_a_host
from tests.upstream.small_network import as_the_hosts_change_it

HOSTS = Path(os.environ.get("GUARD_HOSTS", "/nowhere"))


@dataclass(frozen=True)
class Script:
    """A script, the layout of real images that it reads, and our recipe."""

    path: str
    layout: str
    arguments: str
    normalization: str
    num_classes: int
    recipe: str
    epochs: int
    batch_size: int
    networks: int


CIFAR = Script(
    "SRe2L/SRe2L/*small_dataset/relabel_cifar.py",
    "cifar100",
    "--syn-data-path syn --teacher-path teacher.pth --ipc 10 --output-dir student",
    "CIFAR10",  # whose numbers the script takes
    100,
    "sre2l-cifar",
    epochs=30,
    batch_size=20,
    networks=5,
)
TINY = Script(
    "tiny-imagenet/classification/train_kd.py",
    "tinyimagenet",
    "--syn-data-path syn --teacher-path teacher.pth --image-per-class 10 --output-dir student --workers 0 --device cpu "
    "--opt sgd --lr 0.2 --momentum 0.9 --weight-decay 1e-4 --lr-scheduler cosineannealinglr --lr-warmup-epochs 5 "
    "--lr-warmup-method linear --lr-warmup-decay 0.01 -T 20",
    "TinyImageNet",
    200,
    "sre2l-tiny",
    epochs=15,
    batch_size=25,
    networks=5,
)

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        not all((HOSTS / script.path).is_file() for script in (CIFAR, TINY)),
        reason="GUARD_HOSTS names no folder with clones of SRe2L, tiny-imagenet",
    ),
]

HOSTS_RUN = """
import random, runpy, sys
import numpy, torch, torchvision
from small_network import SmallNetwork
script, seed, *arguments = sys.argv[1:]
random.seed(int(seed)), numpy.random.seed(int(seed)), torch.manual_seed(int(seed)), torch.set_num_threads(1)
torchvision.models.get_model = lambda name, weights=None, *, num_classes: SmallNetwork(num_classes)
sys.argv = [script, *arguments]
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def real_images(script: Script, folder: Path, *, train: bool) -> tuple[np.ndarray, torch.Tensor]:
    """Return levels of shape (n, height, width, 3), uint8, and labels."""
    if script is CIFAR:
        cifar = CIFAR100(str(folder / "data"), train=train)
        return cifar.data, torch.tensor(cifar.targets)
    tiny = folder / "data" / "tiny-imagenet-200"
    if train:
        named = [(file, file.parent.parent.name) for file in sorted(tiny.glob("train/*/images/*"))]
    else:
        rows = (row.split("\t") for row in (tiny / "val" / "val_annotations.txt").read_text().splitlines())
        named = [(tiny / "val" / "images" / name, wnid) for name, wnid, *_ in rows]
    classes = (tiny / "wnids.txt").read_text().split()
    levels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in named])
    return levels, torch.tensor([classes.index(wnid) for _, wnid in named])


def distilled_set(script: Script, levels: np.ndarray, labels: torch.Tensor) -> DistilledSet:
    space = normalization_named(script.normalization)
    images = space.to_input(torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 255)
    return DistilledSet(images, labels, script.num_classes, space)


def write_recovered(script: Script, folder: Path) -> DistilledSet:
    """Write real images, ten of a class, as recover writes what it recovered; return them as they are read."""
    levels, labels = real_images(script, folder, train=True)
    chosen = torch.cat([torch.nonzero(labels == c)[:10, 0] for c in range(10)])
    for number, array in enumerate(levels[chosen]):
        place = folder / "syn" / f"new{number // 10:03d}" / f"class{number // 10:03d}_id{number % 10:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(place)  # as PNG: what the script reads is then exactly this
    return distilled_set(script, levels[chosen], labels[chosen])


def write_teacher(script: Script, folder: Path) -> Path:
    """Train a teacher on real images; write its weights as both scripts read them."""
    everything = distilled_set(script, *real_images(script, folder, train=True))
    recipe = RECIPES["dc"].with_values({"epochs": 12, "batch_size": 32})
    teacher = train_student(everything, partial(as_the_hosts_change_it, script.num_classes), recipe, seed=99)
    file = folder / "teacher.pth"
    torch.save({"state_dict": {f"module.{name}": weight for name, weight in teacher.state_dict().items()}}, file)
    return file


def theirs(script: Script, folder: Path, environment: dict[str, str]) -> list[float]:
    extra = of_a_host()
    extra["PYTHONPATH"] = f"{extra['PYTHONPATH']}:{Path(__file__).parent}"
    arguments = shlex.split(f"{script.arguments} --epochs {script.epochs} --batch-size {script.batch_size}")
    accuracies = []
    for seed in range(script.networks):
        command = [sys.executable, "-W", "ignore", "-c", HOSTS_RUN, str(HOSTS / script.path), str(seed), *arguments]
        done = subprocess.run(command, env={**environment, **extra}, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        accuracies.append(float(re.findall(r"Test: +Acc@1 ([\d.]+)", done.stdout)[-1]) / 100)
    return accuracies


def ours(script: Script, folder: Path, distilled: DistilledSet, teacher: Path) -> list[float]:
    network = partial(as_the_hosts_change_it, script.num_classes)
    recipe = RECIPES[script.recipe].with_values({"epochs": script.epochs, "batch_size": script.batch_size})
    recipe = recipe.with_labels(TeacherLabels(teacher, "small", network))
    recipe.check(distilled)
    test = distilled_set(script, *real_images(script, folder, train=False))
    students = [train_student(distilled, network, recipe, seed=seed) for seed in range(script.networks)]
    with torch.no_grad():
        return [float((student(test.images).argmax(1) == test.labels).float().mean()) for student in students]


@pytest.mark.parametrize("script", [CIFAR, TINY], ids=["relabel_cifar.py", "train_kd.py"])
def test_students_are_as_good_as_the_scripts(script, tmp_path, environment, monkeypatch):
    materialize(script.layout, tmp_path / "data", train=60, test=50)
    monkeypatch.setattr("torchvision.datasets.CIFAR100._check_integrity", lambda *_: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_, **__: True)
    distilled, teacher = write_recovered(script, tmp_path), write_teacher(script, tmp_path)
    hosts, own = theirs(script, tmp_path, environment), ours(script, tmp_path, distilled, teacher)
    print(f"{script.recipe}: ours", statistics.mean(own), own, "theirs", statistics.mean(hosts), hosts)
    assert min(*own, *hosts) > 0.12  # chance among the ten classes is 0.1
    spread = (statistics.variance(own) + statistics.variance(hosts)) / script.networks
    assert abs(statistics.mean(own) - statistics.mean(hosts)) <= 4 * spread**0.5 + 0.01, (own, hosts)
