"""The driver of the paper's tables: nothing is done twice, and machines share the work without gaps."""

import argparse
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from itertools import product

import pytest

from examples.reproduce import __main__ as driver
from examples.reproduce import hosted
from examples.reproduce.cells import ARMS, TABLES, Cell, dealt, groups
from examples.reproduce.paper import commands_of
from examples.reproduce.report import seconds_per_set, tables
from examples.reproduce.running import run_once
from examples.reproduce.small import Scale, distillation
from tests.conftest import ROOT

pytestmark = pytest.mark.long


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


def test_folders_and_data_are_named_the_same_on_every_machine(tmp_path):
    squeeze = distillation(Cell("sre2l", ARMS["guard"], "digits", 10, 0), Scale()).steps[0].arguments
    assert not any(argument.startswith("/") for argument in squeeze) and "{data}" in squeeze
    assert run_once(["run", "--dry-run", *squeeze[1:]], tmp_path, "step", {"data": tmp_path / "images"})
    log = (tmp_path / "step.log").read_text()
    assert json.loads((tmp_path / "step.done.json").read_text())["arguments"][2:] == squeeze[1:]
    assert "examples/baselines/sre2l" in log and "{" not in log


def test_other_penalties_take_the_place_of_a_tables():
    cells = TABLES[5].cells(["digits"], 1, [ARMS["baseline"], ARMS["guard-loss"]])
    assert {cell.arm.name for cell in cells} == {"baseline", "guard-loss"} and len(cells) == 12
    assert cells[-1].arm.options == ("--form", "loss", "--strength", "1")


def test_cells_share_a_teacher_only_where_it_is_the_same():
    cell = Cell("sre2l", ARMS["guard"], "digits", 10, 0)
    teacher, images = (step.folder for step in distillation(cell, Scale()).steps)
    same, others = distillation(replace(cell, ipc=1), Scale()).steps
    assert same.folder == teacher and others.folder != images
    for change in ({"seed": 1}, {"arm": ARMS["baseline"]}, {"dataset": "MNIST"}, {"method": "cda"}):
        assert distillation(replace(cell, **change), Scale()).steps[0].folder != teacher, change
    assert distillation(cell, Scale(teacher_epochs=21)).steps[0].folder != teacher


def test_images_of_one_teacher_are_labelled_by_another():
    cell = Cell("cda", ARMS["guard-images"], "digits", 10, 0)
    mixed, guard, plain = (
        distillation(replace(cell, arm=ARMS[arm]), Scale()) for arm in ("guard-images", "guard", "baseline")
    )
    assert mixed.distilled == guard.distilled and mixed.files == plain.files
    assert [step.folder for step in mixed.steps] == [
        guard.steps[0].folder, plain.steps[0].folder, guard.steps[1].folder,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="expected sre2l or cda for arm guard-images, .*: dc"):
        distillation(replace(cell, method="dc"), Scale())


_EPOCHS = ("pgd100-1000-epochs1500", "pgd100-1000-epochs2000")
_PROTOCOLS = ("pgd100-1000", *_EPOCHS, "pgd100-500", "hosts-pgd100-500")
_ARMS_IN_README = {
    "the paper's": "guard",
    "`--form loss`": "guard-loss",
    "`--form loss --strength 3`": "guard-loss-3",
    "adversarial training, 1/255": "adversarial",
    "adversarial training, 4/255": "adversarial-4",
    "adversarial training, 8/255": "adversarial-8",
}


def test_published_tables_are_what_the_files_give():
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
    printed = {name: tables(ROOT / "docs/results" / name) for name in _PROTOCOLS}
    rows = [row for text in printed.values() for row in text.splitlines() if row.startswith("| ")]
    assert len(rows) > 40 and not [row for row in rows if row not in page]
    found = set()
    for name, text in printed.items():
        for dataset, table in re.findall(r"### (\w+)\n\n(.*?)(?:\n\n|$)", text, re.DOTALL):
            for method, arm, *points in (row.strip("| ").split(" | ") for row in table.splitlines()):
                if arm == "baseline":
                    plain = points
                elif arm not in ARMS:  # a header
                    continue
                group = (name.startswith("hosts"), dataset, method)
                found.add((*group, arm, *(plain[i].split()[0] for i in (0, 1, 3, 4)), *points[:2], *points[3:5]))
    short = re.findall(r"^\| (\w+)('s own script.*?)?, ([\w-]+) \| ([\d., ]+) \| (.*?) \| (.*) \|$", readme, re.M)
    assert len(short) > 20
    for method, hosts, dataset, plain, penalty, points in short:
        group = (bool(hosts), dataset.replace("-", ""), f"{method.lower()}, 10")
        row = (*group, _ARMS_IN_README[penalty], *plain.split(", "), *points.split(" | "))
        assert row in found, row


@pytest.mark.parametrize("method", ["sre2l", "cda", "dc", "mtt", "tesla"])
def test_no_two_cells_are_distilled_in_one_folder(method):
    cells = [
        Cell(method, arm, dataset, ipc, seed)
        for arm, dataset, ipc, seed in product(ARMS.values(), ("digits", "MNIST"), (1, 10), (0, 1))
        if not arm.parts
    ]
    assert len({distillation(cell, Scale()).steps[-1].folder for cell in cells}) == len(cells)


@pytest.mark.parametrize("method", ["dc", "mtt", "tesla", "sre2l", "cda"])
def test_hosts_distil_in_folders_of_their_own(method):
    dataset = "TinyImageNet" if method in ("sre2l", "cda") else "CIFAR10"
    cells = [Cell(method, ARMS[arm], dataset, ipc, 0) for arm, ipc in product(("baseline", "guard"), (1, 10))]
    steps = {step.folder: step for cell in cells for step in hosted.distillation(cell, Scale()).steps}
    ours = {step.folder for cell in cells for step in distillation(cell, Scale()).steps}
    assert not ours & set(steps) and len(steps) == (4 if method == "dc" else 6)
    assert all("--repair" in step.arguments and "{hosts}/" in " ".join(step.arguments) for step in steps.values())


@pytest.mark.parametrize(
    "options, message",
    [
        (["5", "--scale", "hosts", "--hosts", "clones"], "expected --dataset TinyImageNet, .*: FashionMNIST-sre2l"),
        (
            ["5", "--scale", "hosts", "--hosts", "clones", "--dataset", "TinyImageNet", "--arm", "guard-labels"],
            "an arm with one teacher: TinyImageNet-sre2l-ipc1-guard-labels",
        ),
        (["5", "--arm", "guard-images"], "expected sre2l or cda for arm guard-images, .*: dc"),
        (["5", "--cell", "3/2"], "expected --cell I/N"),
        (
            ["5", "--method", "mtt"],
            "no cell of table 5 has this method and IPC: table 5 has dc, sre2l, cda at IPC 1, 10",
        ),
        (["5", "--scale", "hosts"], "needs --hosts FOLDER"),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_anything_runs(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce", *options, "--out", str(tmp_path / "out")])
    monkeypatch.setattr(driver, "run_once", lambda *_: pytest.fail("something ran"))
    with pytest.raises(SystemExit) as ended:
        sys.exit(driver.main())
    assert ended.value.code == 2 and re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_every_arm_of_a_table_is_printed_for_every_method():
    for number, table in TABLES.items():
        lines = [shlex.join(["guard", *words]) for words in commands_of(number)]
        for method in table.methods:
            of_method = [line for line in lines if f" {method} HOSTS/" in line or f" {method} 'HOSTS/" in line]
            for arm in table.arms:
                assert any(" ".join(["guard run --repair", *arm.options, method]) in line for line in of_method), arm
    assert not any("gradient_norm" in " ".join(words) for words in commands_of(5))


def test_a_set_that_waited_does_not_move_the_seconds(tmp_path):
    sets = [[{"seconds": 4}, {"seconds": 6}], [{"seconds": 5}, {"seconds": 7}], [{"seconds": 900}, {"seconds": 6}]]
    (tmp_path / "distilled.json").write_text(json.dumps(sets))
    assert seconds_per_set(tmp_path) == 12


def test_two_arms_are_distilled_measured_and_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "Scale", lambda: Scale(match=2))
    args = argparse.Namespace(
        tables=[5], dataset=["digits"], method=["dc"], arm=None, ipc=[1], seeds=2, students=1, out=tmp_path,
        data=tmp_path, attacks="fgsm", eps="8/255", n_examples=20, epochs=2, scale="small", hosts=None,
    )  # fmt: skip
    found = driver.chosen(args)
    guarded, unguarded = "digits-dc-ipc1-guard", "digits-dc-ipc1-baseline"
    assert list(found) == [unguarded, guarded]
    assert all(driver.measure(name, cells, args) for name, cells in found.items())
    out = tmp_path / "fgsm-20-epochs2"
    assert driver.protocol(args) == out and driver.compare(found, out)
    results = json.loads((out / "measured" / guarded / "results.json").read_text())
    assert results["subject"]["experiments"] == 2 and results["protocol"]["seeds"] == 2
    assert results["protocol"]["recipe"]["epochs"] == 2
    assert {made["settings"]["strength"] for made in results["subject"]["made_under"].values()} == {100}
    assert (out / "compared" / guarded / "page.html").is_file()
    steps = json.loads((out / "measured" / guarded / "distilled.json").read_text())
    assert [len(of_cell) for of_cell in steps] == [1, 1] and "guarded" in steps[0][0]["ledger"]
    header, _, baseline, guard = [line.split(" | ") for line in tables(out).splitlines()[2:]]
    plain = json.loads((out / "measured" / unguarded / "results.json").read_text())
    gain = 100 * (results["accuracy"]["clean"]["mean"] - plain["accuracy"]["clean"]["mean"])
    assert header[2:5] == ["clean", "fgsm", "sets x students"] and guard[2].startswith(f"{gain:+.1f} [")
    assert baseline[2].startswith(f"{100 * plain['accuracy']['clean']['mean']:.1f} [") and guard[4] == "2 x 1"
    # Elsewhere, with what is kept and without what was deleted, nothing is left to do.
    shutil.rmtree(tmp_path / "cells")
    elsewhere = argparse.Namespace(**{**vars(args), "out": tmp_path.rename(tmp_path.with_name("moved"))})
    assert all(driver.measure(name, cells, elsewhere) for name, cells in found.items())
    assert not (elsewhere.out / "cells").exists()
