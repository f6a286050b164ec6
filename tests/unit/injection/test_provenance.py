"""Files that one script hands to another carry their origin beside them."""

import io
import json
from pathlib import Path

import pytest
import torch

from guard_plugin.injection.ledger import Ledger
from guard_plugin.injection.provenance import Provenance, marker_of, why_not_guarded

NAMES = "replay_*.pt"


def ledger(
    strength: float = 1.0, outcome: str = "complete", faults: tuple[dict, ...] = (), penalty="curvature"
) -> Ledger:
    return Ledger(
        adapter="mtt",
        script="buffer.py",
        penalty={"name": penalty, "strength": strength},
        strength=strength,
        unguarded="",
        definitions=[],
        versions={},
        outcome=outcome,
        faults=faults,
        guarded=1,
    )


def write(file: Path, of: Ledger) -> Path:
    """Write a file as a script does under a run with this ledger."""
    provenance = Provenance(NAMES, "", of)
    torch.save([1, 2], file)
    provenance.remove()
    provenance.mark()
    return file


def test_only_what_the_run_itself_wrote_is_marked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    provenance = Provenance(NAMES, "", ledger())
    torch.save([1], "replay_0.pt")
    torch.save(obj=[1], f=tmp_path / "replay_1.pt")
    torch.save([1], "other.pt")
    torch.save([1], io.BytesIO())
    (tmp_path / "replay_2.pt").write_bytes(b"another process's")
    torch.save([1], "replay_3.pt")
    (tmp_path / "replay_3.pt").unlink()
    provenance.remove()
    torch.save([1], "replay_4.pt")
    provenance.mark()
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["replay_0.pt.guard.json", "replay_1.pt.guard.json"]
    assert json.loads(marker_of(tmp_path / "replay_0.pt").read_text())["ledger"]["adapter"] == "mtt"
    assert why_not_guarded(tmp_path / "replay_1.pt") == ""


def test_torchs_own_functions_are_given_back():
    originals = torch.save, torch.load
    provenance = Provenance(NAMES, NAMES, ledger())
    assert (torch.save, torch.load) != originals
    provenance.remove()
    assert (torch.save, torch.load) == originals


def test_a_file_is_not_guards_for_a_reason(tmp_path):
    torch.save([1], tmp_path / "replay_0.pt")
    assert why_not_guarded(tmp_path / "replay_0.pt") == "there is no replay_0.pt.guard.json beside it"
    assert why_not_guarded(write(tmp_path / "replay_1.pt", ledger(0.0))) == "it was made at strength 0"
    assert "ended as 'failed'" in why_not_guarded(write(tmp_path / "replay_2.pt", ledger(outcome="failed")))
    harmed = "a fault of the host, 'alias', which --repair mends"
    for number, (fault, reason) in enumerate(
        (
            ({"repaired": False}, harmed),
            ({"repaired": False, "stops": False}, harmed),
            ({"repaired": False, "stops": True}, ""),  # the script went on: it did not meet it
            ({"repaired": True}, ""),
        )
    ):
        file = write(tmp_path / f"replay_{4 + number}.pt", ledger(faults=({"name": "alias", **fault},)))
        assert reason in why_not_guarded(file) and bool(reason) == bool(why_not_guarded(file))
    file = write(tmp_path / "replay_3.pt", ledger())
    file.write_bytes(b"another")
    assert "another file" in why_not_guarded(file)


def test_from_the_moment_a_file_is_written_an_older_runs_marker_vouches_no_more(tmp_path):
    file = write(tmp_path / "replay_0.pt", ledger())
    assert why_not_guarded(file) == ""
    provenance = Provenance(NAMES, NAMES, ledger(outcome="running"))
    torch.save([1, 2], file)  # the same bytes
    provenance.remove()  # and the run is killed
    assert why_not_guarded(file) == "the run that wrote it did not end, or goes on"


def test_a_file_that_could_not_be_written_is_not_vouched_for(tmp_path):
    file = write(tmp_path / "replay_0.pt", ledger())
    provenance = Provenance(NAMES, "", ledger())
    with pytest.raises(AttributeError):
        torch.save(lambda: None, file)
    with pytest.raises((RuntimeError, OSError)):
        torch.save([1], tmp_path / "no" / "replay_1.pt")
    provenance.remove()
    provenance.mark()
    assert why_not_guarded(file) and not (tmp_path / "no").exists()


def test_a_file_that_the_run_itself_wrote_is_not_taken_over(tmp_path, capsys):
    own = ledger()
    provenance = Provenance(NAMES, NAMES, own)
    torch.save([1], tmp_path / "replay_0.pt")
    torch.load(tmp_path / "replay_0.pt")
    provenance.remove()
    provenance.mark()
    assert own.taken_over == {} and not capsys.readouterr().err
    assert why_not_guarded(tmp_path / "replay_0.pt") == ""


def test_a_run_that_guarded_nothing_vouches_for_nothing(tmp_path):
    nothing = ledger()
    nothing.guarded = 0
    assert "guarded no loss call" in why_not_guarded(write(tmp_path / "replay_0.pt", nothing))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "[" * 200_000, '{"sha256": 1, "ledger": {}}', '{"ledger": {"faults": [3]}}', '{"ledger": 1}'],
)
def test_a_marker_that_cannot_be_read_vouches_for_nothing(tmp_path, content):
    file = write(tmp_path / "replay_0.pt", ledger())
    marker_of(file).write_text(content)
    assert "cannot be read" in why_not_guarded(file)


def test_a_marker_that_cannot_be_written_is_told_and_keeps_no_other_from_it(tmp_path, capsys):
    marker_of(tmp_path / "replay_0.pt").mkdir()
    provenance = Provenance(NAMES, "", ledger())
    for number in (0, 1):
        torch.save([1], tmp_path / f"replay_{number}.pt")
    provenance.remove()
    provenance.mark()
    assert "no marker can be written" in capsys.readouterr().err
    assert why_not_guarded(tmp_path / "replay_1.pt") == "" != why_not_guarded(tmp_path / "replay_0.pt")


def test_reading_warns_of_what_is_not_guards_once(tmp_path, capsys):
    guarded, plain = write(tmp_path / "replay_1.pt", ledger()), tmp_path / "replay_0.pt"
    torch.save([1], plain)
    reading = ledger()
    provenance = Provenance("", NAMES, reading)
    reading.unguarded = "it distils"
    assert "0 of 0 files read" in reading.summary()
    for file in (guarded, plain, str(plain)):
        assert torch.load(file)
    torch.save([1], tmp_path / "other.pt")
    torch.load(tmp_path / "other.pt")
    provenance.remove()
    warning = capsys.readouterr().err
    assert warning.count("warning") == 1 and f"{plain} is not known to be made under GUARD (there is no" in warning
    assert reading.taken_over == {
        str(guarded): {"penalty": "curvature", "reason": ""},
        str(plain): {"penalty": "", "reason": why_not_guarded(plain)},
    }
    assert "1 of 2 files read are GUARD's (made under curvature)" in reading.summary()


def test_a_comparators_file_is_not_guards_and_is_warned_of_under_another_penalty(tmp_path, capsys):
    file = write(tmp_path / "replay_0.pt", ledger(penalty="pgd_at"))
    same, other = ledger(penalty="pgd_at"), ledger()
    for reading in (same, other):
        provenance = Provenance(NAMES, NAMES, reading)
        torch.load(file)
        torch.save([3], tmp_path / "replay_1.pt")
        provenance.remove()
        provenance.mark()
        assert reading.taken_over == {str(file): {"penalty": "pgd_at", "reason": ""}}
        assert "0 of 1 files read are GUARD's, 1 made under pgd_at" in reading.summary()
        doubt = "" if reading is same else f"under penalty curvature, went on from files of another: {file} (pgd_at)"
        assert why_not_guarded(tmp_path / "replay_1.pt").endswith(doubt)
        warning = f"{file} was made under penalty 'pgd_at', and this run's is 'curvature'"
        assert (warning in capsys.readouterr().err) == (reading is other)
    assert why_not_guarded(tmp_path / "replay_1.pt")
