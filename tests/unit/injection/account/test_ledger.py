"""What the ledger says of the penalty's values."""

import pytest
import torch

from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.account.tallies import Shares


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
        ((1e-3, 1e-3), 2.0, "the penalty was 0.05 % of the loss (median), below 0.1 %: this was nearly a plain run"),
        ((-1e-3, -1e-3), -2.0, "nearly a plain run"),
        ((0.0, 1e-3, 3e-3), 2.0, "nearly a plain run"),
        ((1e-3, 3e-3, 3e-3), 2.0, ""),
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


def test_the_share_of_the_loss_is_told_first_median_and_last():
    found = ledger()
    for value, loss in ((0.5, 2.0), (0.1, 1.0), (0.3, 1.0), (0.3, 0.0), (0.06, 0.3)):
        found.note_guarded(None, torch.tensor(value), torch.tensor(loss))
    share = found.to_json()["penalty_value"]["share"]
    assert share == pytest.approx({"first": 0.25, "median": 0.225, "last": 0.2})  # of 0.25, 0.1, 0.3, 0.2
    assert "mean penalty 0.252 (of the loss: 25 % first, 22 % median, 20 % last)" in found.summary()


def test_the_median_of_a_long_run_is_that_of_its_calls_and_memory_is_bounded():
    shares = Shares()
    for call in range(10_000):
        shares.note(torch.tensor(call), torch.tensor(10_000))
    assert shares.used < 1024 and shares.every == 16
    assert shares.to_json()["median"] == pytest.approx(0.5, abs=0.01)
    assert shares.to_json()["last"] == 0.9999


def test_shares_of_child_processes_count_by_their_calls():
    own, child = Shares(), Shares()
    for _ in range(100):
        own.note(torch.tensor(1.0), torch.tensor(10.0))
    for _ in range(3000):
        child.note(torch.tensor(2.0), torch.tensor(10.0))
    own.add(child.counts())
    own.add(Shares().counts())
    assert own.to_json() == {"first": 0.1, "median": 0.2, "last": 0.2}
    assert own.every == 4 and own.count == 3100 and own.used == 25 + 750


@pytest.mark.parametrize("calls", [(1000, 600), (600, 1000), (5, 3000, 3000), (*[1] * 2500, 500), (3000, *[1] * 2500)])
def test_the_median_over_processes_is_that_of_one_process_that_made_all_calls(calls):
    both, alone, made = Shares(), Shares(), torch.arange(sum(calls)).split(calls)
    for some in made:
        child = Shares()
        for one in some:
            for shares in (child, alone):
                shares.note(one, torch.tensor(sum(calls)))
        both.add(child.counts())
    found, right = both.to_json(), alone.to_json()
    assert (found["first"], found["last"]) == (right["first"], right["last"])
    assert found["median"] == pytest.approx(0.5, abs=0.01) and right["median"] == pytest.approx(0.5, abs=0.01)
    assert both.count == sum(calls) and both.used < 1024


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
