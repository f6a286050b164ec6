import numpy as np
import pytest

from guard_plugin.evaluation.costs import Cost
from guard_plugin.evaluation.records import Record, RecordFolder
from guard_plugin.files import atomic_file


def test_records_come_back_as_they_were(tmp_path):
    folder = RecordFolder(tmp_path / "new" / "folder", examples=3)
    assert folder.get("pgd100@4/255") is None
    folder.put("pgd100@4/255", Record(np.array([True, False, True]), Cost(1.5, 6, 2)))
    record = folder.get("pgd100@4/255")
    np.testing.assert_array_equal(record.correct, [True, False, True])
    assert record.cost == Cost(1.5, 6, 2)
    folder.clear()
    assert folder.get("pgd100@4/255") is None


def test_a_file_that_was_not_finished_does_not_appear(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
