import numpy as np

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
