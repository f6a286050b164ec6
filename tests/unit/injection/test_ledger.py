"""What the ledger says of the penalty's values."""

import pytest
import torch

from guard_plugin.injection.ledger import Ledger


def ledger(strength: float = 1.0) -> Ledger:
    return Ledger(
        adapter="dc", script="main.py", penalty={}, strength=strength, unguarded="", definitions=[], versions={}
    )


def noted(*values: float, loss: float = 2.0) -> Ledger:
    found = ledger()
    for value in values:
        found.note_seen("main.py:1", [])
        found.note_guarded("main.py:1", torch.tensor(value), torch.tensor(loss))
    return found


@pytest.mark.parametrize(
    ("values", "loss", "words"),
    [
        ((0.0, 0.0), 2.0, "the penalty was 0 in every guarded loss call"),
        ((1e-6, 1e-6), 2.0, "the mean penalty, 1e-06, is below a millionth of the mean loss, 2:"),
        ((-1e-6, -1e-6), -2.0, "is below a millionth"),
        ((0.0, 1e-5), 2.0, ""),
        ((0.1,), 2.0, ""),
        ((0.1,), float("nan"), ""),
        ((float("nan"),), 2.0, ""),
        ((1e-6,), 0.0, ""),
        ((), 2.0, ""),
    ],
)
def test_a_penalty_that_does_not_act_is_a_warning(values, loss, words):
    found = noted(*values, loss=loss)
    assert len(found.warnings) == bool(words) and words in "".join(found.warnings)
    assert found.to_json()["warnings"] == found.warnings
    assert ("WARNING" in found.summary()) == bool(words) and words in found.summary()


def test_the_mean_loss_is_kept_and_later_changes_of_the_loss_are_not(capsys):
    found, loss = ledger(), torch.tensor(3.0)
    for _ in range(2):
        found.note_guarded(None, torch.tensor(1.0), loss)
        loss += 2
    assert found.to_json()["penalty_value"]["loss_mean"] == 4.0


def test_a_baseline_reads_as_one():
    found = ledger(strength=0.0)
    found.note_seen("main.py:1", [])
    found.note_guarded("main.py:1", None, torch.tensor(1.0))
    written = found.to_json()
    assert written["loss_calls"]["guarded"] == 1 and written["loss_calls"]["penalized"] == 0
    assert written["sites"] == {"main.py:1": {"seen": 1, "on real data": 1}}
    assert "a baseline, without any penalty" in found.summary() and "guarded" not in found.summary()
    assert noted(1.0).to_json()["loss_calls"]["penalized"] == 1
