import json

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge.autoattack import EvaluationState, finished_state

OUTCOMES = torch.tensor([True, False, True, True])


@pytest.fixture
def file(tmp_path):
    """A state as it has always been written."""
    text = '{"fingerprint": "model 1", "finished": ["apgd-ce", "square"], "robust": [true, false, true, true]}'
    (tmp_path / "state.json").write_text(text)
    return tmp_path / "state.json"


def test_a_state_is_written_as_it_always_was(file, tmp_path):
    state = EvaluationState(tmp_path / "new.json", "model 1")
    state.robust_flags = OUTCOMES.clone()
    state.add_run_attack("square")
    state.add_run_attack("apgd-ce")
    assert (tmp_path / "new.json").read_text() == file.read_text()


def test_a_state_that_is_read_keeps_what_has_fallen(file):
    state = EvaluationState(file, "model 1")
    assert state.run_attacks == {"apgd-ce", "square"}
    state.robust_flags = found = torch.tensor([True, True, True, False])
    assert found.tolist() == json.loads(file.read_text())["robust"] == [True, False, True, False]


def test_the_finished_flags_have_a_mean(file):
    assert finished_state(str(file)).robust_flags.mean().item() == 0.75


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"_attacks_to_run": "{'square'}", "_robust_flags": None})])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    for read in (finished_state, lambda path: EvaluationState(path, "model 1")):
        with pytest.raises(UnusableInput, match=r"state.json is not an AutoAttack state.*delete it"):
            read(tmp_path / "state.json")
