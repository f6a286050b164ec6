import json

import numpy as np
import pytest

from guard_plugin.comparison import compare, comparison_page, comparison_text, read_benchmark
from guard_plugin.comparison.results_file import columns_of
from guard_plugin.errors import UnusableInput
from guard_plugin.foreign_text import printable
from tests.unit.comparison.folders import GONE, attacks_at, flags, shaken, write_benchmark

CORRECT = {"clean": flags(0.9, 0.8), "fgsm": flags(0.5, 0.4), "pgd10": flags(0.3, 0.2)}


@pytest.fixture
def folder(tmp_path):
    return write_benchmark(tmp_path / "done", CORRECT)


def edit(folder, change):
    file = folder / "results.json"
    results = json.loads(file.read_text())
    change(results)
    file.write_text(json.dumps(results))


def test_outcomes_are_those_that_were_recorded(folder):
    one = read_benchmark(folder)
    assert all(np.array_equal(one.correct[column], expected) for column, expected in CORRECT.items())
    assert [column.kind for column in one.columns] == ["clean", "attack", "attack", "worst"]
    assert one.columns[2].ball == "eps 8/255 (Linf)"


def test_worst_cases_are_per_example_and_per_ball(tmp_path):
    attacks = attacks_at("4/255", "8/255")
    columns = ["clean", "fgsm@4/255", "pgd10@4/255", "fgsm@8/255", "pgd10@8/255"]
    correct = {name: shaken(0.6, seed) for seed, name in enumerate(columns)}
    one = read_benchmark(write_benchmark(tmp_path / "done", correct, attacks=attacks))
    for ball in ("4/255", "8/255"):
        expected = [
            [all(correct[name][s, e] for name in ("clean", f"fgsm@{ball}", f"pgd10@{ball}")) for e in range(100)]
            for s in range(3)
        ]
        assert np.array_equal(one.correct[f"worst_case@{ball}"], expected)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("results.json", "unfinished benchmark.*run the same guard benchmark command again"),
        ("records/student-1/pgd10.npz", "student-1 has no record of column pgd10: run the same"),
        ("fingerprint.json", "fingerprint.json is missing"),
    ],
)
def test_a_missing_file_is_named_with_the_fix(folder, file, words):
    (folder / file).unlink()
    with pytest.raises(UnusableInput, match=words):
        read_benchmark(folder)


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="no such folder"):
        read_benchmark(tmp_path / "nowhere")
    with pytest.raises(UnusableInput, match="holds no benchmark"):
        read_benchmark(tmp_path)


def test_another_schema_is_refused(folder):
    edit(folder, lambda results: results.update(schema=99))
    with pytest.raises(UnusableInput, match="expected schema 1 in .*, got 99"):
        read_benchmark(folder)


@pytest.mark.parametrize("key", ["protocol", "accuracy", "subject", "cost", "versions"])
def test_results_that_lack_a_key_are_refused(folder, key):
    edit(folder, lambda results: results.pop(key))
    with pytest.raises(UnusableInput, match=f"is not what guard benchmark writes .*{key}"):
        read_benchmark(folder)


def test_results_that_are_no_json_are_refused(folder):
    (folder / "results.json").write_text("{")
    with pytest.raises(
        UnusableInput, match="cannot be read as JSON .*: if a benchmark was cut off, run the same guard"
    ):
        read_benchmark(folder)


@pytest.mark.parametrize("column", ["clean", "pgd10", "worst_case"])
def test_an_accuracy_that_the_records_do_not_give_is_refused(folder, column):
    def change(results):
        results["accuracy"][column]["mean"] += 0.01

    edit(folder, change)
    with pytest.raises(UnusableInput, match=f"records of column {column} give an accuracy of"):
        read_benchmark(folder)


def test_accuracies_that_were_exchanged_between_students_are_refused(folder):
    edit(folder, lambda results: results["accuracy"]["clean"]["per_seed"].reverse())
    with pytest.raises(UnusableInput, match="files are of two benchmarks, or were changed"):
        read_benchmark(folder)


def test_results_of_version_0_1_are_read_as_they_were_computed(tmp_path):
    """Students took their sets in turn; means were over students, also where sets have different numbers of them."""
    correct = {
        column: np.concatenate([flags[:1]] * 3 + [flags[1:]] * 2)[[0, 3, 1, 4, 2]] for column, flags in CORRECT.items()
    }
    folder = write_benchmark(tmp_path / "old", correct, subject={**GONE, "experiments": 2})

    def change(results):
        for entry in results["accuracy"].values():
            entry["mean"] = float(np.mean(entry["per_seed"]))
            for key in ("per_set", "limited_by", "shares"):
                del entry[key]

    edit(folder, change)
    one = read_benchmark(folder)
    assert one.sets == (0, 1, 0, 1, 0) and one.count == 2 and one.is_told
    clean = compare([one, read_benchmark(write_benchmark(tmp_path / "new", CORRECT))]).accuracy["clean"]
    assert clean["old"]["mean"] == pytest.approx((0.9 + 0.8) / 2)
    untold = read_benchmark(write_benchmark(tmp_path / "untold", CORRECT, subject=GONE))
    assert untold.count == 1 and not untold.is_told


@pytest.mark.parametrize("told", [[0], [0, 1, 2], ["0", "1"], 7, "01", [[0], [1]]])
def test_sets_that_do_not_fit_the_students_are_refused(folder, told):
    edit(folder, lambda results: results["subject"].update(set_of_student=told))
    with pytest.raises(UnusableInput, match="set_of_student|is not what guard benchmark writes"):
        read_benchmark(folder)


def test_results_of_another_protocol_are_refused(folder):
    edit(folder, lambda results: results["protocol"].update(arch="ConvNet"))
    with pytest.raises(UnusableInput, match="mixes the files of two benchmarks.*differ in arch"):
        read_benchmark(folder)


def test_columns_that_are_not_the_attacks_are_refused(folder):
    def change(results):
        results["accuracy"] = {name: results["accuracy"][name] for name in ("clean", "pgd10", "fgsm", "worst_case")}

    edit(folder, change)
    with pytest.raises(UnusableInput, match="columns clean, pgd10, fgsm, worst_case are not those of the attacks"):
        read_benchmark(folder)


def test_columns_are_told_apart_by_norm_and_eps():
    attacks = [
        {"name": "pgd10", "norm": "linf", "eps": "8/255", "eps_value": 8 / 255},
        {"name": "square", "norm": "linf", "eps": "8/255", "eps_value": 8 / 255},
        {"name": "pgd10-l2", "norm": "l2", "eps": "0.5", "eps_value": 0.5},
    ]
    names = ["clean", "pgd10@8/255", "square@8/255", "pgd10-l2@0.5", "worst_case@8/255", "worst_case-l2@0.5"]
    members = {"worst_case@8/255": ["pgd10@8/255", "square@8/255"], "worst_case-l2@0.5": ["pgd10-l2@0.5"]}
    results = {"accuracy": dict.fromkeys(names), "protocol": {"attacks": attacks}, "worst_cases": members}
    columns = columns_of(results)
    assert [column.ball for column in columns[3:]] == ["eps 0.5 (L2)", "eps 8/255 (Linf)", "eps 0.5 (L2)"]
    assert [column.members for column in columns[4:]] == [("pgd10@8/255", "square@8/255"), ("pgd10-l2@0.5",)]


@pytest.mark.parametrize(
    "value", [None, [], {}, "text", "\x1b[2J\ud800", 10**30, 10**400, -1, [[None]]], ids=lambda value: str(value)[:9]
)
@pytest.mark.parametrize(
    "path",
    [
        "schema",
        "subject",
        "subject.kind",
        "subject.path",
        "subject.experiments",
        "subject.set_of_student",
        "subject.paths",
        "ledgers",
        "protocol",
        "protocol.seeds",
        "protocol.n_examples",
        "protocol.recipe",
        "protocol.attacks",
        "protocol.attacks.0.eps_value",
        "accuracy.fgsm",
        "accuracy.fgsm.mean",
        "worst_cases.worst_case",
        "flags",
        "cost.seconds.fgsm",
        "cost.forwards",
        "cost.forwards.fgsm",
        "ledger",
        "versions",
    ],
)
def test_wrong_types_are_compared_or_refused_and_never_crash(folder, tmp_path, path, value):
    other = write_benchmark(tmp_path / "other", CORRECT)
    results = json.loads((folder / "results.json").read_text())
    *outer, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = results
    for key in outer:
        place = place[key]
    place[last] = value  # keys that are not there are added
    (folder / "results.json").write_text(json.dumps(results))
    try:
        compared = compare([read_benchmark(one) for one in (other, folder)])
        text = comparison_page(compared) + printable(comparison_text(compared))
    except UnusableInput as error:
        text = printable(str(error))
    assert printable(text) == text


def test_a_network_that_is_right_on_nothing_has_no_records_of_attacks(tmp_path):
    nothing = dict.fromkeys(CORRECT, flags(0, 0))
    folder = write_benchmark(tmp_path / "none", nothing)
    for column in ("fgsm", "pgd10"):
        for student in (0, 1):
            (folder / "records" / f"student-{student}" / f"{column}.npz").unlink()
    assert not read_benchmark(folder).correct["worst_case"].any()
