import sys
import time
from types import SimpleNamespace

import pytest

from guard_plugin.progress import Progress, tracked


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("guard_plugin.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_log_gets_a_line_a_minute(clock, capsys):
    with Progress("network 2 of 5, pgd100", 1000, "example", done=100) as progress:
        for _ in range(9):
            clock[0] += 25
            progress.update(50)
    assert capsys.readouterr().err.splitlines() == [
        "guard: network 2 of 5, pgd100: 250 of 1000 examples after 1 min, about 6 min left",
        "guard: network 2 of 5, pgd100: 400 of 1000 examples after 2 min, about 5 min left",
        "guard: network 2 of 5, pgd100: 550 of 1000 examples after 4 min, about 4 min left",
    ]


def test_short_work_and_other_processes_leave_no_line(clock, capsys):
    assert list(tracked(range(3), "reading", 3, "image")) == [0, 1, 2]
    with Progress("pgd100", 10, "example", shown=False) as progress:
        clock[0] += 1000
        progress.update()
    assert capsys.readouterr().err == ""


def test_hours_are_written_as_such(clock, capsys):
    for _ in tracked(range(2), "training student 0", 2, "epoch"):
        clock[0] += 5000
    assert "1 of 2 epochs after 1 h 23 min, about 1 h 23 min left" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in tracked(range(3), "reading", 3, "image"):
        time.sleep(0.11)  # tqdm shows the next step after a tenth of a second
    shown = capsys.readouterr().err
    assert "reading" in shown and "3/3" in shown and "guard:" not in shown
