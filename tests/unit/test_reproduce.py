"""The driver of the paper's tables: nothing is done twice, and machines share the work without gaps."""

import argparse
import json

import pytest

from examples.reproduce import __main__ as driver
from examples.reproduce.cells import ARMS, TABLES, Cell, dealt, groups
from examples.reproduce.paper import commands_of
from examples.reproduce.running import run_once
from examples.reproduce.small import Scale

pytestmark = pytest.mark.examples


def test_machines_share_all_groups():
    names = [f"group-{number}" for number in range(7)]
    shares = [dealt(names, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(name for share in shares for name in share) == names and max(map(len, shares)) == 3


@pytest.mark.parametrize("share", ["0/3", "4/3", "2", "a/b", "1/"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="expected --cell I/N"):
        dealt(["a"], share)


def test_cells_that_tables_share_are_one():
    cells = [cell for number in (1, 5) for cell in TABLES[number].cells(["digits"], 2)]
    assert len(set(cells)) < len(cells)
    one = Cell("sre2l", ARMS["guard"], "digits", 10, 0)
    assert cells.count(one) == 2 and [cell.seed for cell in groups(list(dict.fromkeys(cells)))[one.group]] == [0, 1]


def test_what_was_done_is_not_done_again(tmp_path):
    def log() -> int:
        return (tmp_path / "step.log").stat().st_mtime_ns

    assert run_once(["plugins"], tmp_path, "step")
    record, first = json.loads((tmp_path / "step.done.json").read_text()), log()
    assert record["arguments"] == ["plugins"] and record["seconds"] > 0
    assert run_once(["plugins"], tmp_path, "step") and log() == first
    assert run_once(["plugins", "--json"], tmp_path, "step") and log() > first


def test_what_failed_is_told_and_done_again(tmp_path, capfd):
    assert not run_once(["plugins", "--no-such-option"], tmp_path, "step")
    assert "ended with code 2" in capfd.readouterr().err and not (tmp_path / "step.done.json").exists()
    assert run_once(["plugins"], tmp_path, "step")


def test_every_arm_of_a_table_is_printed_for_every_method():
    for number, table in TABLES.items():
        lines = [command.text() for command in commands_of(number)]
        for method in table.methods:
            of_method = [line for line in lines if f" {method} HOSTS/" in line or f" {method} 'HOSTS/" in line]
            for arm in table.arms:
                assert any(" ".join(["guard run --repair", *arm.options, method]) in line for line in of_method), arm
    assert not any("gradient_norm" in command.text() for command in commands_of(5))


def test_two_arms_are_distilled_measured_and_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "Scale", lambda: Scale(match=2))
    args = argparse.Namespace(
        tables=[5], dataset=["digits"], method=["dc"], arm=None, ipc=[1], seeds=2, students=1, out=tmp_path,
        data=tmp_path, attacks="fgsm", eps="8/255", n_examples=20,
    )  # fmt: skip
    found = driver.chosen(args)
    guarded = "digits-dc-ipc1-guard"
    assert list(found) == ["digits-dc-ipc1-baseline", guarded]
    assert all(driver.measure(name, cells, args) for name, cells in found.items()) and driver.compare(found, tmp_path)
    results = json.loads((tmp_path / "measured" / guarded / guarded / "results.json").read_text())
    assert results["subject"]["experiments"] == 2 and results["protocol"]["seeds"] == 2
    assert {made["settings"]["strength"] for made in results["subject"]["made_under"].values()} == {100}
    assert (tmp_path / "compared" / guarded / "page.html").is_file()
