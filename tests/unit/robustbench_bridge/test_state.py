import json

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge.state import ReportedState, SavedState

FLAGS = torch.tensor([True, False, True, True])


def test_a_state_is_read_back_as_it_was(tmp_path):
    SavedState(tmp_path / "state.json", "model 1", {"apgd-ce", "square"}, FLAGS).write()
    again = SavedState.read(tmp_path / "state.json")
    assert again.finished == {"apgd-ce", "square"} and again.fingerprint == "model 1"
    assert again.robust.dtype == torch.bool and torch.equal(again.robust, FLAGS)


def test_a_state_from_before_the_clean_pass_is_read_back(tmp_path):
    SavedState(tmp_path / "state.json", "model 1").write()
    assert SavedState.read(tmp_path / "state.json").robust is None
    assert ReportedState.from_disk(tmp_path / "state.json").robust_flags is None


def test_the_reported_flags_have_a_mean(tmp_path):
    SavedState(tmp_path / "state.json", "model 1", set(), FLAGS).write()
    assert ReportedState.from_disk(str(tmp_path / "state.json")).robust_flags.mean().item() == 0.75


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"_attacks_to_run": "{'square'}", "_robust_flags": None})])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UnusableInput, match=r"state.json is not an AutoAttack state.*delete it"):
        SavedState.read(tmp_path / "state.json")
