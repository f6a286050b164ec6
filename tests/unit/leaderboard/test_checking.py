import functools
import json

import jinja2
import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.foreign_text import printable
from guard_plugin.leaderboard import leaderboard_json, leaderboard_page, leaderboard_text, rank, read_entries
from tests.conftest import ROOT
from tests.unit.comparison.html_checks import parsed
from tests.unit.leaderboard.boards import LEDGER, alone, edit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return alone(tmp_path_factory.mktemp("written") / "alice.json").read_text()


@pytest.fixture
def file(tmp_path, written):
    (tmp_path / "alice.json").write_text(written)
    return tmp_path / "alice.json"


def put(path, value):
    """A change that puts a value at a path such as "accuracy.clean.mean"."""
    *outer, last = [int(key) if key.isdigit() else key for key in path.split(".")]

    def change(results):
        place = results
        for key in outer:
            place = place[key]
        place[last] = value

    return change


def test_a_file_as_guard_benchmark_wrote_it_is_taken(file):
    (entry,) = read_entries([file])
    told = json.loads(file.read_text())
    assert entry.accuracy == told["accuracy"] and entry.measured is None
    assert entry.source == "as reported: no records"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("subject.kind", "checkpoint", "benchmark of a 'checkpoint', and distilled images are ranked"),
        ("subject.ipc", None, "subject.ipc, the images per class, as a number above 0, got None"),
        ("subject.ipc", 0, "subject.ipc"),
        ("subject.ipc", True, "subject.ipc"),
        ("subject.sha256", "0" * 63, "subject.sha256 as 64 hexadecimal digits"),
        ("subject.sha256", "0" * 64 + "\n", "subject.sha256 as 64 hexadecimal digits"),
        ("protocol.data_sha256", "D" * 64, "protocol.data_sha256 as 64 hexadecimal digits"),
        ("protocol.dataset", "", "protocol.dataset as 1 to 200 printable characters"),
        ("protocol.arch", "A" * 201, "protocol.arch as 1 to 200 printable characters"),
        ("protocol.arch", "Conv\x1b[2J", "protocol.arch as 1 to 200 printable characters"),
        ("subject.adapter", "dc\nmtt", "subject.adapter as 1 to 200 printable characters"),
        ("protocol.seeds", 5, "clean accuracies are of 6 students, but protocol.seeds is 5"),
        ("protocol.n_examples", 0, "n_examples as a whole number above 0"),
        ("protocol.num_classes", True, "num_classes as a whole number above 0"),
        ("protocol.n_examples", 100, "of clean are not shares of 100 examples"),
        ("protocol.attacks.1.eps_value", 0.01, "not those of the attacks|are not what|eps_value of pgd10"),
        ("subject.set_of_student", [0, 1, 2, 0, 1, 9], "set_of_student from 0 to 5"),
        ("subject.set_of_student", [0, 0, 0, 1, 1, 1], "per_set of clean are not the means of its students"),
        ("accuracy.pgd10.mean", 0.5, "pgd10 do not give the mean 0.500000"),
        ("accuracy.pgd10.mean", 1.2, "accuracies of pgd10 from 0 to 1"),
        ("accuracy.pgd10.ci95", [0.9, 0.95], "ci95 of pgd10 around"),
        ("accuracy.pgd10.ci95", [0.0, 0.1], "ci95 of pgd10 around"),
        ("accuracy.pgd10.ci95", [0.6, 0.1], "ci95 of pgd10 around"),
        ("accuracy.pgd10.per_seed", [0.4] * 5, "one for each of 6 students"),
        ("accuracy.pgd10.per_set", [0.4] * 3, "per_set of pgd10 are not the means"),
        ("worst_cases.worst_case", ["fgsm"], "expected worst_case of fgsm, pgd10, got"),
        ("schema", 2, "expected schema 1"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_by_name(file, path, value, words):
    edit(file, put(path, value))
    with pytest.raises(UnusableInput, match=words) as refused:
        read_entries([file])
    assert str(file) in str(refused.value) and "benchmark" in str(refused.value)


def with_two_sets(results, accuracies, ci95, examples):
    """All columns of a file as if two sets, of two students that agree, had these accuracies."""
    results["subject"]["set_of_student"], results["protocol"]["seeds"] = [0, 1, 0, 1], 4
    results["protocol"]["n_examples"] = examples
    for entry in results["accuracy"].values():
        entry.update(per_seed=accuracies * 2, per_set=accuracies, mean=sum(accuracies) / 2, ci95=ci95)


@pytest.mark.parametrize(
    ("accuracies", "ci95", "words"),
    [
        ([0.94, 0.96], [0.95, 0.95], "ci95 of clean around 0.950000, got 0.950000 to 0.950000"),
        ([0.94, 0.94], [0.94, 0.94], "ci95 of clean around 0.940000, got 0.940000 to 0.940000"),
        ([0.94, 0.96], [0.94, 1.0], "ci95 of clean to hold 0.773805 to 0.990613, .* over 50 examples"),
        ([0.94, 0.96], [0.5, 0.96], "ci95 of clean to hold 0.773805 to 0.990613"),
        ([1.0, 1.0], [1.0, 1.0], "ci95 of clean to hold 0.928652 to 1.000000"),
        ([0.0, 0.0], [0.0, 0.0], "ci95 of clean to hold 0.000000 to 0.071348"),
    ],
)
def test_an_interval_that_its_own_accuracies_exclude_is_refused(file, accuracies, ci95, words):
    edit(file, lambda results: with_two_sets(results, accuracies, ci95, 50))
    with pytest.raises(UnusableInput, match=words):
        read_entries([file])


@pytest.mark.parametrize(("accuracies", "ci95"), [([0.94, 0.96], [0.7738, 0.9907]), ([1.0, 1.0], [0.9286, 1.0])])
def test_an_interval_that_its_own_accuracies_allow_is_taken(file, accuracies, ci95):
    edit(file, lambda results: with_two_sets(results, accuracies, ci95, 50))
    assert read_entries([file])


def test_intervals_of_version_01_are_checked_by_what_it_computed(file, written):
    """The mean in the middle, and no "per_set"."""

    def change(results):
        with_two_sets(results, [0.94, 0.96], ci95, 50)
        for entry in results["accuracy"].values():
            del entry["per_set"]

    ci95 = [0.938, 0.962]
    read_entries([edit(file, change)])
    file.write_text(written)
    ci95 = [0.94, 0.96]
    with pytest.raises(UnusableInput, match="ci95 of clean to hold 0.938684 to 0.961316"):
        read_entries([edit(file, change)])


def test_all_that_was_committed_is_taken():
    files = sorted((ROOT / "docs" / "results").glob("*/measured/*/results.json"))
    assert len(read_entries(files)) == len(files) > 20


@pytest.mark.parametrize(("column", "above"), [("pgd10", "clean"), ("worst_case", "pgd10")])
def test_a_student_that_is_better_under_attack_is_refused(file, column, above):
    """All of the column's own figures agree with each other."""

    def change(results):
        entry, bound = results["accuracy"][column], results["accuracy"][above]
        entry["per_seed"] = [one + 1 / 200 for one in bound["per_seed"]]
        entry["per_set"] = [one + 1 / 200 for one in bound["per_set"]]
        entry["mean"], entry["ci95"] = bound["mean"] + 1 / 200, [0.0, 1.0]

    edit(file, change)
    with pytest.raises(UnusableInput, match=f"the accuracy of {column} is above that of {above} for a student"):
        read_entries([file])


def test_a_radius_is_the_number_of_its_text(file):
    def change(results):
        for attack in results["protocol"]["attacks"]:
            attack["eps_value"] = 4 / 255

    edit(file, change)
    with pytest.raises(UnusableInput, match="expected eps_value of fgsm as eps 8/255 above 0, got 0.0156"):
        read_entries([file])


def test_a_file_without_attacks_is_refused(file):
    """It would stand in no ranking."""

    def change(results):
        results["protocol"]["attacks"], results["worst_cases"] = [], {}
        results["accuracy"] = {"clean": results["accuracy"]["clean"]}

    edit(file, change)
    with pytest.raises(UnusableInput, match="alice.json .*expected attacks in protocol.attacks, got none.: benchmark"):
        read_entries([file])


def test_many_problems_are_told_in_part(file):
    def change(results):
        results["subject"]["sha256"] = results["protocol"]["data_sha256"] = "no hash"
        results["subject"]["adapter"] = results["protocol"]["arch"] = ""

    edit(file, change)
    with pytest.raises(UnusableInput) as refused:
        read_entries([file])
    assert str(refused.value).count("expected") == 3 and "; and more: take the file" in str(refused.value)


def test_a_file_that_is_no_results_json_is_refused(tmp_path):
    for name, text in {"nan": '{"schema": 1, "x": NaN}', "cut": '{"schema": 1', "list": "[]", "big": "1e999"}.items():
        (tmp_path / f"{name}.json").write_text(text)
        with pytest.raises(UnusableInput, match="cannot be read as JSON|expected a JSON object"):
            read_entries([tmp_path / f"{name}.json"])


def test_a_file_that_is_nested_deeply_is_refused(file):
    deep = {}
    for _ in range(200):
        deep = {"deep": deep}
    edit(file, put("protocol.recipe", deep))
    with pytest.raises(UnusableInput, match="nested more than 32 deep"):
        read_entries([file])


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UnusableInput, match="huge.json has 1073741824 bytes, which is more than any results.json"):
        read_entries([tmp_path / "huge.json"])


PATHS = [
    "schema", "subject", "subject.ipc", "subject.adapter", "subject.sha256", "subject.made_under",
    "subject.experiments", "protocol.num_classes",
    "subject.made_under.x", "subject.made_under.x.penalty", "subject.made_under.x.settings",
    "subject.made_under.x.settings.strength", "subject.made_under.x.runs", "subject.made_under.x.runs.0.guarded",
    "subject.made_under.x.runs.0.commit", "subject.set_of_student", "protocol.dataset", "protocol.n_examples",
    "protocol.seeds", "protocol.recipe", "protocol.recipe.name", "protocol.attacks", "protocol.attacks.0",
    "protocol.attacks.0.eps", "protocol.attacks.0.eps_value", "protocol.attacks.0.coupled", "protocol.split",
    "protocol.source", "accuracy.fgsm", "accuracy.fgsm.per_seed", "accuracy.fgsm.per_seed.0", "accuracy.fgsm.ci95",
    "accuracy.fgsm.per_set", "accuracy.fgsm.mean", "worst_cases.worst_case", "flags", "flags.0", "flags.0.reason",
    "cost.seconds.fgsm", "ledger", "ledger.penalty", "ledger.loss_calls", "ledger.loss_calls.guarded",
    "ledger.loss_calls.expected", "ledger.host", "ledger.summary", "ledgers", "versions", "versions.torch",
]  # fmt: skip
RUN = {"adapter": "dc", "script": "main.py", "commit": "8d00cba", "guarded": 20, "expected": 20, "started": "x"}


@pytest.fixture(scope="module")
def compiled_templates(tmp_path_factory):
    """Keep what jinja2 compiles of templates, of which each page takes five."""
    cache = jinja2.FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Environment", functools.partial(jinja2.Environment, bytecode_cache=cache))
        yield


@pytest.mark.parametrize(
    "value",
    [None, [], {}, "text", "\x1b[2J\ud800<script>", 10**30, 10**400, -1, 0.5, True, [[None]], {"a": {"b": []}}],
    ids=lambda value: f"{type(value).__name__}{str(value)[:9]!r}",
)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.usefixtures("compiled_templates")
def test_wrong_types_are_ranked_or_refused_and_never_crash(file, path, value):
    def change(results):
        origin = {"penalty": "curvature", "reason": "", "settings": dict(LEDGER["penalty"]), "runs": [dict(RUN)]}
        results["subject"]["made_under"] = {"x": origin} if "made_under" in path else {}
        results["ledger"] = json.loads(json.dumps(LEDGER))
        results["flags"] = [{"column": "clean", "reason": "near chance"}]
        put(path, value)(results)

    edit(file, change)
    try:
        rankings = rank(read_entries([file]))
        page = leaderboard_page(rankings)
        assert [element.tag for element in parsed(page).iter() if element.tag == "script"] == ["script"]
        text = page + printable(leaderboard_text(rankings)) + json.dumps(leaderboard_json(rankings))
    except UnusableInput as error:
        text = printable(str(error))
    assert printable(text) == text
