import json
import shutil

import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.leaderboard import read_entries
from tests.unit.leaderboard.boards import LEDGER, alone, edit, folder


def test_accuracies_of_a_folder_come_from_its_records(tmp_path):
    made = folder(tmp_path / "ours")
    told = json.loads((made / "results.json").read_text())
    narrow = edit(made / "results.json", lambda results: results["accuracy"]["pgd10"].update(ci95=[0.0, 1.0]))
    (entry,) = read_entries([made])
    assert narrow.exists() and entry.measured is not None and entry.source == "verified from its records"
    assert entry.accuracy["pgd10"]["ci95"] == pytest.approx(told["accuracy"]["pgd10"]["ci95"])


def test_every_entry_that_cannot_be_used_is_named_at_once(tmp_path):
    good, bad = folder(tmp_path / "good"), folder(tmp_path / "bad", seed=1)
    (bad / "records" / "student-0" / "pgd10.npz").unlink()
    text = tmp_path / "text.json"
    text.write_text("no JSON")
    with pytest.raises(UnusableInput) as refused:
        read_entries([bad, good, text, tmp_path / "nowhere"])
    first, *others = str(refused.value).splitlines()
    assert first == "3 of 4 cannot be ranked, so nothing was written:"
    assert [any(str(place) in line for line in others) for place in (bad, text, tmp_path / "nowhere", good)] == [
        True,
        True,
        True,
        False,
    ]


def test_one_benchmark_twice_is_refused(tmp_path):
    made = folder(tmp_path / "ours")
    copy = shutil.copy(made / "results.json", tmp_path / "copy.json")
    for again in (made, tmp_path / "copy.json"):
        with pytest.raises(UnusableInput, match="has the same results.json as .*ours: name it once"):
            read_entries([made, again])
    assert str(copy).endswith("copy.json")


def test_labels_are_names_and_of_a_results_json_its_folders(tmp_path):
    made = folder(tmp_path / "ours")
    (tmp_path / "alice").mkdir()
    files = [alone(tmp_path / "alice" / "results.json", seed=1), alone(tmp_path / "bob.json", seed=2)]
    assert [entry.label for entry in read_entries([made, *files])] == ["ours", "alice", "bob.json"]


def test_a_folder_whose_names_are_no_names_is_refused_too(tmp_path):
    made = folder(tmp_path / "ours", subject={"adapter": "\x1b[2J"})
    with pytest.raises(UnusableInput, match="subject.adapter as 1 to 200 printable characters"):
        read_entries([made])


def test_nothing_is_no_leaderboard():
    with pytest.raises(UnusableInput, match="expected folders that guard benchmark --out wrote"):
        read_entries([])


def test_each_refusal_is_one_line(tmp_path):
    """Whatever names the file has."""
    file = alone(tmp_path / "alice.json")
    edit(file, lambda results: results["accuracy"].update({"x\nguard: all is well": 1}))
    with pytest.raises(UnusableInput, match="all is well") as refused:
        read_entries([file])
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({**LEDGER, "schema": 1}, "a ledger of guard run"),
        ({"ledger": LEDGER, "sha256": ""}, "a marker of guard run"),
        ({"dataset": "digits", "software": {}}, "a fingerprint.json"),
        ({"a": 1}, "no such file"),
    ],
)
def test_another_file_in_place_of_results_is_named(tmp_path, content, found):
    file = tmp_path / "given.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UnusableInput, match=f"given.json a results.json of guard benchmark, found {found}: give the"):
        read_entries([file])
