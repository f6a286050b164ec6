import numpy as np
import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.records import Cost, Record, RecordFolder


def test_records_come_back_as_they_were(tmp_path):
    folder = RecordFolder(tmp_path / "new" / "folder", examples=3)
    assert folder.get("pgd100@4/255") is None
    folder.put("pgd100@4/255", Record(np.array([True, False, True]), Cost(1.5, 6, 2)))
    record = folder.get("pgd100@4/255")
    np.testing.assert_array_equal(record.correct, [True, False, True])
    assert record.cost == Cost(1.5, 6, 2)
    folder.clear()
    assert folder.get("pgd100@4/255") is None


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": np.nan},
        {"farthest": np.inf},
        {"forwards": -1},
        {"backwards": np.array([1, 2])},
        {"seconds": np.array("text")},
        {"correct": np.zeros(3, np.bool_)},
        {"correct": np.zeros(20)},
        {"done": None},
    ],
    ids=str,
)
def test_what_is_no_record_is_refused_with_the_fix(tmp_path, change):
    records = RecordFolder(tmp_path, examples=20)
    records.put("fgsm", Record(np.ones(20, np.bool_), Cost()))
    with np.load(tmp_path / "fgsm.npz") as file:
        arrays = {**file, **change}
    np.savez(tmp_path / "fgsm.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(UnusableInput, match=r"fgsm\.npz.*delete it and run again"):
        records.get("fgsm")
