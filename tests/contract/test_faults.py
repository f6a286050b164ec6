"""The faults that the adapters know: how they are mended, on scripts of our own in the shape of the hosts'."""

import importlib
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from guard_adapters.fkd_fetcher import fetching_stored_labels, torch_fetches_none
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import fetch

from guard_plugin.hosts.faults import FoundFault, Repairs, find_faults
from guard_plugin.hosts.faults.fault import always
from guard_plugin.plugins import Plugins

PROFILES = {
    f"{name}-{profile.script}": profile
    for name, registered in Plugins().adapters.items()
    for profile in registered.value.profiles
}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_each_fault_says_its_harm_and_travels_to_processes_that_begin_anew(profile):
    for fault in profile.faults:
        assert fault.harm and fault.name.islower() and not Path(fault.file).is_absolute()
        assert pickle.loads(pickle.dumps(FoundFault(replace(fault, only_if=always), Path(fault.file), (1,))))
    assert len(set(profile.faults)) == len(profile.faults)


def run_mended(folder: Path, script: str, file: str, source: str) -> dict:
    """Execute a file of a host, mended as ``--repair`` mends it for a script; return its names."""
    profile = next(profile for profile in PROFILES.values() if profile.script == script)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(source)
    repairs = Repairs(find_faults(profile.faults, folder))
    try:
        namespace: dict = {}
        exec(compile(repairs.source(folder / file), file, "exec"), namespace)
        return namespace
    finally:
        repairs.remove()


@pytest.mark.parametrize("name", ["recover_cifar", "relabel_cifar"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_teachers_names_may_begin_with_module_or_not(tmp_path, name, prefix):
    source = """
import torch
model_teacher = torch.nn.DataParallel(torch.nn.Linear(2, 1))
def load(checkpoint):
    model_teacher.load_state_dict(checkpoint["state_dict"])
"""
    file = f"SRe2L/*small_dataset/{name}.py"
    host = run_mended(tmp_path, file, file, source)
    weights = OrderedDict([(f"{prefix}weight", torch.tensor([[1.0, 2.0]])), (f"{prefix}bias", torch.tensor([3.0]))])
    host["load"]({"state_dict": weights})
    assert host["model_teacher"](torch.ones(1, 2)).item() == 6.0


@pytest.mark.parametrize("prefix", ["", "module."])
def test_cda_finds_the_weights_of_a_teacher_without_prefix_too(tmp_path, prefix):
    source = """
def found(state, names):
    Flag = "state_dict" in state
    state = state.get("state_dict", state)
    there = []
    for key in names:
        if Flag:
            key = "module." + key
        if key in state:
            there.append(key)
    return there
"""
    host = run_mended(tmp_path, "CDA/recover_cda_in21k.py", "CDA/utils.py", source)
    assert host["found"]({"state_dict": {f"{prefix}a": 1}}, ["a", "b"]) == [f"{prefix}a"]
    assert host["found"]({"a": 1}, ["a", "b"]) == ["a"]


def test_a_checkpoint_is_read_to_the_cpu_where_there_is_no_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = """
import types
torch = types.SimpleNamespace(load=lambda file, **how: (file, how))
args = types.SimpleNamespace(teacher_path="a")
read = [torch.load(args.teacher_path), torch.load("./checkpoint/ckpt.pth"), torch.load("b", map_location="cpu")]
"""
    file = "SRe2L/*small_dataset/relabel_cifar.py"
    there = {"map_location": "cpu"}
    assert run_mended(tmp_path, file, file, source)["read"] == [
        (name, there) for name in ("a", "./checkpoint/ckpt.pth", "b")
    ]


def test_make_dataset_takes_what_torchvision_passes(tmp_path):
    folder = pytest.importorskip("torchvision.datasets.folder")
    source = """
from typing import Callable, Optional

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import make_dataset

class Folder(ImageFolder):
    @staticmethod
    def make_dataset(
        directory: str,
        class_to_idx: dict,
        extensions: Optional[tuple] = None,
        is_valid_file: Optional[Callable[[str], bool]] = None,
    ):
        return make_dataset(directory, class_to_idx, extensions, is_valid_file)
"""
    (tmp_path / "images" / "class").mkdir(parents=True)
    (tmp_path / "images" / "class" / "0.png").write_bytes(b"")
    host = run_mended(tmp_path, "SRe2L/validate/train_KD.py", "SRe2L/validate/imagenet_ipc.py", source)
    assert len(host["Folder"](str(tmp_path / "images"))) == 1
    assert folder.make_dataset is host["make_dataset"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_soft_labels_are_found_with_and_without_a_slash(tmp_path, slash):
    source = """
import os
def batches(fkd_path):
    return os.listdir(os.path.join(
        fkd_path + 'epoch_0'))
"""
    host = run_mended(tmp_path, "SRe2L/validate/train_FKD.py", "SRe2L/relabel/utils_fkd.py", source)
    (tmp_path / "labels" / "epoch_0" / "batch_0.tar").mkdir(parents=True)
    assert host["batches"](f"{tmp_path}/labels{slash}") == ["batch_0.tar"]


@pytest.mark.parametrize("images", [1, 2])
def test_dsas_augmentation_takes_one_image(tmp_path, images):
    source = """
import torch
def brighter(n):
    randb = torch.arange(1.0, n + 1).view(n, 1)
    randb[:] = randb[0]
    return randb
"""
    host = run_mended(tmp_path, "main.py", "utils.py", source)
    assert host["brighter"](images).flatten().tolist() == [1.0] * images


class Stored(Dataset):
    """Examples whose crops are stored by batch, and must be loaded before them."""

    def __init__(self, mode: str) -> None:
        self.mode, self.crop = mode, None

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> int:
        return index + (self.crop or 0)

    def load_batch_config(self, first: int):
        self.crop = 10 * (first + 1)
        return None, 0.5, [first], torch.tensor([first])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_with_what_is_stored_for_them(workers):
    assert torch_fetches_none()
    own = fetch._MapDatasetFetcher
    with fetching_stored_labels():
        loaded = list(DataLoader(Stored("fkd_load"), batch_size=2, num_workers=workers))
        others = list(DataLoader(Stored("fkd_save"), batch_size=2, num_workers=workers))
    assert fetch._MapDatasetFetcher is own
    plain = list(DataLoader(Stored("fkd_save"), batch_size=2))
    for (examples, *stored), first in zip(loaded, (0, 2, 4)):
        assert examples.tolist() == [10 * (first + 1) + i for i in range(first, min(first + 2, 5))]
        assert stored == [None, 0.5, [first], torch.tensor([first])]
    assert [batch.tolist() for batch in others] == [batch.tolist() for batch in plain] == [[0, 1], [2, 3], [4]]


def test_torch_that_was_edited_by_hand_is_left_alone(monkeypatch, tmp_path):
    source = "class _MapDatasetFetcher:\n    def fetch(self, indices):\n        return 'fkd_load'\n"
    (tmp_path / "edited_fetch.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fetch, "_MapDatasetFetcher", importlib.import_module("edited_fetch")._MapDatasetFetcher)
    assert not torch_fetches_none()
