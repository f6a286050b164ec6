"""Files that one script hands to another carry their origin beside them."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from guard_plugin.errors import SeamError
from guard_plugin.injection.handover import Handover, marker_of, why_not_guarded
from guard_plugin.injection.ledger import Ledger
from guard_plugin.injection.told import HandedFiles

FILES = HandedFiles("buffer.main", lambda variables: variables["save_dir"], "replay_*.pt", "save_dir")


def ledger(strength: float = 1.0, outcome: str = "complete", faults: tuple[dict, ...] = ()) -> Ledger:
    return Ledger(
        adapter="mtt",
        script="buffer.py",
        penalty={"name": "curvature", "strength": strength},
        strength=strength,
        unguarded="",
        definitions=[],
        versions={},
        outcome=outcome,
        faults=faults,
        skipped=Counter(),
    )


def place(**variables: object) -> SimpleNamespace:
    return SimpleNamespace(locals_of=lambda seam: variables if seam == "buffer.main" else None)


def write(folder: Path, name: str, of: Ledger) -> Path:
    """Write a file as a run with this ledger does."""
    handover = Handover(FILES, None, of)
    handover.learn(place(save_dir=str(folder)))
    (folder / name).write_bytes(name.encode())
    handover.mark()
    return folder / name


def test_only_what_the_run_wrote_is_marked(tmp_path):
    (tmp_path / "replay_0.pt").write_bytes(b"plain")
    (tmp_path / "other.pt").write_bytes(b"other")
    file = write(tmp_path, "replay_1.pt", ledger())
    assert why_not_guarded(file) == ""
    assert json.loads(marker_of(file).read_text())["ledger"]["adapter"] == "mtt"
    assert not marker_of(tmp_path / "replay_0.pt").exists() and not marker_of(tmp_path / "other.pt").exists()


def test_a_file_is_not_guards_for_a_reason(tmp_path):
    (tmp_path / "replay_0.pt").write_bytes(b"plain")
    assert why_not_guarded(tmp_path / "replay_0.pt") == "there is no replay_0.pt.guard.json beside it"
    assert why_not_guarded(write(tmp_path, "replay_1.pt", ledger(0.0))) == "it was made at strength 0"
    assert (
        why_not_guarded(write(tmp_path, "replay_2.pt", ledger(outcome="failed"))) == "the run that wrote it was failed"
    )
    for repaired, reason in ((False, "a fault of the host, alias, which --repair mends"), (True, "")):
        file = write(tmp_path, f"replay_{4 + repaired}.pt", ledger(faults=({"name": "alias", "repaired": repaired},)))
        assert reason in why_not_guarded(file) and bool(reason) == bool(why_not_guarded(file))
    file = write(tmp_path, "replay_3.pt", ledger())
    file.write_bytes(b"another")
    assert "another file" in why_not_guarded(file)
    for broken in ("", "[]", '{"sha256": 1, "ledger": {}}'):
        marker_of(file).write_text(broken)
        assert "cannot be read" in why_not_guarded(file)


def test_reading_warns_of_what_is_not_guards(tmp_path, capsys):
    write(tmp_path, "replay_1.pt", ledger())
    reading = ledger()
    Handover(None, FILES, reading).learn(place(save_dir=tmp_path))
    assert reading.taken_over == {"replay_1.pt": ""} and capsys.readouterr().err == ""
    (tmp_path / "replay_0.pt").write_bytes(b"plain")
    reading = ledger()
    handover = Handover(None, FILES, reading)
    for _ in range(2):
        handover.learn(place(save_dir=tmp_path))
    warning = capsys.readouterr().err
    assert warning.count("1 are not known to be made under GUARD") == 1 and "replay_0.pt: there is no" in warning
    assert "1 of 2 files read are GUARD's" in reading.summary()
    assert reading.to_json()["taken_over"]["replay_1.pt"] == ""


def test_a_host_that_does_not_tell_the_folder_is_refused():
    for writes, reads in ((FILES, None), (None, FILES)):
        with pytest.raises(SeamError, match=r"seam buffer.main: expected its local variables to give save_dir"):
            Handover(writes, reads, ledger()).learn(place(args=1))
