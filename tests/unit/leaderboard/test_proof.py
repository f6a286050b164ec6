import pytest

from guard_plugin.leaderboard import read_entries
from tests.unit.leaderboard.boards import LEDGER, folder

SETTINGS = LEDGER["penalty"]
WORDS = "curvature (form gradient, h 0.5, strength 100)"


def run(guarded=20, expected=20, commit="8d00cba1234", script="main.py", started="1"):
    return {
        "adapter": "dc",
        "script": script,
        "commit": commit,
        "guarded": guarded,
        "expected": expected,
        "started": started,
    }


def origin(*runs, reason="", settings=SETTINGS):
    return {"penalty": "curvature", "reason": reason, "settings": settings, "runs": list(runs)}


def none(path):
    return {"penalty": "", "reason": f"there is no {path}.guard.json"}


def proof(tmp_path, made_under=None, **options):
    (entry,) = read_entries([folder(tmp_path / "one", subject={"made_under": made_under or {}}, **options)])
    return entry.proof


def test_without_ledger_and_marker_nothing_is_known(tmp_path):
    told = proof(tmp_path, {"a.pt": none("a.pt")})
    assert (told.penalty, told.losses, told.warnings) == ("not known", "no ledger, no marker", ())


def test_losses_of_all_markers_are_added_up_and_each_run_counts_once(tmp_path):
    teacher = run(5, 5, script="squeeze.py")
    told = proof(tmp_path, {"a.pt": origin(run(), teacher), "b.pt": origin(run(started="2"), teacher)})
    assert told.losses == "marker: 45 of 45 losses guarded, host at 8d00cba"
    assert told.penalty == WORDS and not told.warnings


def test_markers_speak_before_ledgers(tmp_path):
    made = {"a.pt": origin(run(7, 7))}
    assert proof(tmp_path, made, ledger=LEDGER).losses == "marker: 7 of 7 losses guarded, host at 8d00cba"


def test_ledgers_speak_where_there_is_no_marker(tmp_path):
    told = proof(tmp_path, {"a.pt": none("a.pt")}, ledger=LEDGER)
    assert told.losses == "ledger: 20 of 20 losses guarded, host at 8d00cba" and told.penalty == WORDS
    assert told.details[-1] == f"ledger: {LEDGER['summary']}"


@pytest.mark.parametrize(
    ("made_under", "warning"),
    [
        ({"a.pt": {"penalty": "", "reason": "it is another file"}}, "broken chain: it is another file"),
        ({"a.pt": origin(run()), "b.pt": none("b.pt")}, "1 of 2 files have no marker"),
        ({"a.pt": origin(run(19, 20))}, "19 of 20 losses guarded in main.py"),
        (
            {"a.pt": origin(run()), "b.pt": origin(run(), settings={**SETTINGS, "strength": 1.0})},
            f"different penalties: {WORDS}; curvature (form gradient, h 0.5, strength 1)",
        ),
    ],
)
def test_what_is_to_be_doubted_is_warned_of_and_vouches_for_no_penalty(tmp_path, made_under, warning):
    told = proof(tmp_path, made_under)
    assert told.warnings == (warning,) and told.penalty == "not known"


def test_a_run_that_did_not_end_well_vouches_for_nothing(tmp_path):
    told = proof(tmp_path, ledger={**LEDGER, "outcome": "incomplete"})
    assert told.warnings == ("a run ended as 'incomplete'",) and told.penalty == "not known"


def test_a_baseline_is_called_one(tmp_path):
    made = {
        "a.pt": origin(run(commit=None), reason="it was made at strength 0", settings={**SETTINGS, "strength": 0.0})
    }
    told = proof(tmp_path, made)
    assert told.penalty == "strength 0, a baseline" and not told.warnings
    assert told.losses == "marker: 20 of 20 losses left as they are, commit of the host not told"


def test_losses_that_were_left_as_they_are_do_not_count_as_guarded(tmp_path):
    plain = origin(run(7, 7, started="2"), reason="it was made at strength 0", settings={**SETTINGS, "strength": 0.0})
    told = proof(tmp_path, {"images": origin(run()), "teacher.pth": plain})
    assert told.losses == "marker: 20 of 20 losses guarded, 7 of 7 losses left as they are, host at 8d00cba"
