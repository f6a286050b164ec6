import errno
import io

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import mnasnet0_5

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.folder import BenchmarkFolder
from guard_plugin.evaluation.records import Cost, Record


class FullDisk(io.BytesIO):
    """A file of which only a part fits on the disk."""

    def write(self, data):
        if self.tell() + len(data) > 30_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_file_that_fits_on_the_disk_only_in_part_is_explained(tmp_path, monkeypatch):
    folder = BenchmarkFolder(tmp_path, examples=100_000)
    for module in ("folder", "records"):
        monkeypatch.setattr(f"guard_plugin.evaluation.{module}.atomic_file", lambda path: FullDisk())
    with pytest.raises(UnusableInput, match=r"student-0\.pt: .*No space left.*make room, then run"):
        folder.keep_student(0, nn.Linear(100, 100))
    with pytest.raises(UnusableInput, match=r"clean\.npz: .*No space left.*make room, then run"):
        folder.records(0).put("clean", Record(np.ones(100_000, dtype=np.bool_), Cost()))


def test_a_student_comes_back_as_it_was_kept(tmp_path):
    folder, student = BenchmarkFolder(tmp_path, examples=1), mnasnet0_5(num_classes=3)
    folder.keep_student(0, student)
    again = folder.load_student(0, lambda: mnasnet0_5(num_classes=3)).state_dict()
    assert again.keys() == student.state_dict().keys()
    assert all(torch.equal(again[name], value) for name, value in student.state_dict().items())


@pytest.mark.parametrize("other", [nn.Linear(3, 3), nn.Linear(2, 3, bias=False), nn.Sequential(nn.Linear(2, 3)), 3])
def test_another_network_than_the_student_is_refused(tmp_path, other):
    folder = BenchmarkFolder(tmp_path, examples=1)
    folder.keep_student(0, nn.Linear(2, 3))
    torch.save(other.state_dict() if isinstance(other, nn.Module) else other, tmp_path / "students" / "student-0.pt")
    with pytest.raises(UnusableInput, match="does not hold the expected network"):
        folder.load_student(0, lambda: nn.Linear(2, 3))


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", b"cut"])
def test_a_damaged_student_is_deleted_and_trained_again(tmp_path, damage):
    """Damage may look like code of the file's own; the file is ours, and what helps is to train it again."""
    folder = BenchmarkFolder(tmp_path, examples=1)
    folder.keep_student(0, nn.Linear(2, 3))
    file = tmp_path / "students" / "student-0.pt"
    file.write_bytes(file.read_bytes()[:100] if damage == b"cut" else damage)
    with pytest.raises(UnusableInput, match=r"student-0.pt does not hold .*: delete it, run again"):
        folder.load_student(0, lambda: nn.Linear(2, 3))
