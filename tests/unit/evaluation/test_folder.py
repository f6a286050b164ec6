import errno
import io

import numpy as np
import pytest
from torch import nn

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
