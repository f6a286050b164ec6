import numpy as np
import pytest

from guard_plugin.evaluation.results import accuracy_entry, sets_of, unit_of


@pytest.mark.parametrize(
    ("subject", "sets"),
    [
        ({"kind": "distilled", "experiments": 2, "set_of_student": [1, 1, 0, 0]}, [1, 1, 0, 0]),
        ({"kind": "distilled", "experiments": 3}, [0, 1, 2, 0]),  # version 0.1: students took their sets in turn
        ({"kind": "distilled"}, [0, 0, 0, 0]),
        ({"kind": "checkpoint"}, [0, 1, 2, 3]),
    ],
)
def test_the_set_of_each_network_is_as_the_subject_says(subject, sets):
    assert sets_of(subject, 4) == sets
    assert unit_of(subject) == ("networks" if subject["kind"] == "checkpoint" else "sets")


@pytest.mark.parametrize("told", [[0, 1], [0, 1, "2"], [0, 1, True]])
def test_sets_that_are_not_one_for_each_student_are_refused(told):
    with pytest.raises(ValueError, match="a whole number for each of 3 students"):
        sets_of({"kind": "distilled", "set_of_student": told}, 3)


def test_students_are_averaged_within_their_set_first():
    """Three students of one set and one of another."""
    correct = np.arange(100) < np.array([90, 60, 30, 20])[:, None]
    entry = accuracy_entry(correct, [0, 0, 0, 1])
    assert entry["per_seed"] == pytest.approx([0.9, 0.6, 0.3, 0.2])
    assert entry["per_set"] == pytest.approx([0.6, 0.2]) and entry["mean"] == pytest.approx(0.4)
    assert entry["std"] == pytest.approx(np.std([0.9, 0.6, 0.3, 0.2], ddof=1))
    assert entry["ci95"][0] < 0.4 < entry["ci95"][1] and entry["limited_by"] == "sets"
    assert accuracy_entry(correct, range(4), "networks")["limited_by"] == "networks"
