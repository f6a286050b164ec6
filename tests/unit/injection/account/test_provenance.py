"""Files that one script hands to another carry their origin beside them."""

import io
import json
import os
import time
from pathlib import Path

import pytest
import torch

from guard_plugin.distilled.markers import marker_of, origin_of
from guard_plugin.hosts.profile import Profile
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.account.provenance import Provenance

WRITES = Profile("buffer.py", writes="replay_*.pt")
READS = Profile("distill.py", reads="replay_*.pt")
BOTH = Profile("buffer.py", writes="replay_*.pt", reads="replay_*.pt")


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


def why_not_guarded(file: Path) -> str:
    return origin_of(file).reason


def write(file: Path, of: Ledger) -> Path:
    """Write a file as a script does under a run with this ledger."""
    provenance = Provenance(WRITES, (), of)
    torch.save([1, 2], file)
    provenance.remove()
    provenance.mark()
    return file


def test_only_what_the_run_itself_wrote_is_marked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    provenance = Provenance(WRITES, (), ledger())
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
    provenance = Provenance(BOTH, (), ledger())
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
    provenance = Provenance(BOTH, (), ledger(outcome="running"))
    torch.save([1, 2], file)  # the same bytes
    provenance.remove()  # and the run is killed
    assert why_not_guarded(file) == "the run that wrote it did not end, or goes on"


def test_a_file_that_could_not_be_written_is_not_vouched_for(tmp_path):
    file = write(tmp_path / "replay_0.pt", ledger())
    provenance = Provenance(WRITES, (), ledger())
    with pytest.raises(AttributeError):
        torch.save(lambda: None, file)
    with pytest.raises((RuntimeError, OSError)):
        torch.save([1], tmp_path / "no" / "replay_1.pt")
    provenance.remove()
    provenance.mark()
    assert why_not_guarded(file) and not (tmp_path / "no").exists()


def test_a_file_that_the_run_itself_wrote_is_not_taken_over(tmp_path, capsys):
    own = ledger()
    provenance = Provenance(BOTH, (), own)
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
    provenance = Provenance(WRITES, (), ledger())
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
    provenance = Provenance(READS, (), reading)
    reading.unguarded = "it distils"
    assert "0 of 0 files read" in reading.summary()
    for file in (guarded, plain, str(plain)):
        assert torch.load(file)
    torch.save([1], tmp_path / "other.pt")
    torch.load(tmp_path / "other.pt")
    provenance.remove()
    warning = capsys.readouterr().err
    assert warning.count("warning") == 1 and f"{plain} is not known to be made under GUARD (there is no" in warning
    assert reading.taken_over == {str(file): origin_of(file).to_json() for file in (guarded, plain)}
    assert reading.taken_over[str(guarded)]["settings"] == {"name": "curvature", "strength": 1.0}
    assert "1 of 2 files read are GUARD's (made under curvature)" in reading.summary()


def test_a_comparators_file_is_not_guards_and_is_warned_of_under_another_penalty(tmp_path, capsys):
    file = write(tmp_path / "replay_0.pt", ledger(penalty="pgd_at"))
    same, other = ledger(penalty="pgd_at"), ledger()
    for reading in (same, other):
        provenance = Provenance(BOTH, (), reading)
        torch.load(file)
        torch.save([3], tmp_path / "replay_1.pt")
        provenance.remove()
        provenance.mark()
        assert reading.taken_over == {str(file): origin_of(file).to_json()}
        assert "0 of 1 files read are GUARD's, 1 made under pgd_at" in reading.summary()
        doubt = "" if reading is same else "different penalties: curvature (strength 1); pgd_at (strength 1)"
        assert why_not_guarded(tmp_path / "replay_1.pt").endswith(doubt)
        warning = f"{file} was made under penalty 'pgd_at', and this run's is 'curvature'"
        assert (warning in capsys.readouterr().err) == (reading is other)
    assert why_not_guarded(tmp_path / "replay_1.pt")


RECOVERS = Profile(
    "recover.py", unguarded="it recovers", writes_into="new*/*.jpg", reads="*.pth", about={"dataset": "X"}
)
LABELS = Profile("label.py", unguarded="it labels", writes_into="epoch_*/*", reads="*.pth", reads_folders=("--data",))


def later(profile: Profile, *, outcome: str = "complete") -> Ledger:
    """Return the ledger of a step that has nothing to guard."""
    step = ledger(outcome=outcome)
    step.guarded, step.unguarded, step.script = 0, profile.unguarded, profile.script
    return step


def teacher(file: Path, strength: float = 1.0, **of: object) -> Path:
    provenance = Provenance(Profile("train.py", writes="*.pth"), (), made := ledger(strength, **of))
    made.expected = 1
    torch.save([1, 2], file)
    provenance.remove()
    provenance.mark()
    return file


def recover(folder: Path, source: Path, images: range = range(2), **of: object) -> Path:
    """Fill a folder with images as a recovery from this teacher does."""
    image = pytest.importorskip("PIL.Image").new("L", (2, 2))
    provenance = Provenance(RECOVERS, (), later(RECOVERS, **of))
    torch.load(source)
    for number in images:
        (folder / f"new{number:03d}").mkdir(parents=True, exist_ok=True)
        image.save(folder / f"new{number:03d}" / "class.jpg")
    provenance.remove()
    provenance.mark()
    return folder


def test_a_chain_goes_back_to_its_guarded_runs(tmp_path):
    made = teacher(tmp_path / "t.pth")
    images = recover(tmp_path / "images", made)
    provenance = Provenance(LABELS, ["--data", str(images)], later(LABELS))
    torch.load(made)
    (tmp_path / "labels" / "epoch_0").mkdir(parents=True)
    torch.save([3], tmp_path / "labels" / "epoch_0" / "batch_0.tar")
    provenance.remove()
    provenance.mark()
    origin = origin_of(tmp_path / "labels")
    assert origin.reason == "" and origin.about == {"dataset": "X"}
    assert origin.in_words() == "made under curvature (strength 1); mtt buffer.py: 1 of 1 losses guarded"
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "images.guard.json",
        "labels.guard.json",
        "t.pth.guard.json",
    ]
    assert not list(images.rglob("*.json"))  # no host reads a marker as an image


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda images: (images / "new000" / "class.jpg").write_bytes(b"another"), "its files are others"),
        (lambda images: (images / "new000" / "more.jpg").write_bytes(b""), "its files are others"),
        (lambda images: (images / "new000" / "class.jpg").unlink(), "its files are others"),
        (lambda images: marker_of(images).unlink(), "there is no images.guard.json beside it"),
    ],
)
def test_a_folder_that_was_changed_is_not_guards(tmp_path, spoil, reason):
    images = recover(tmp_path / "images", teacher(tmp_path / "t.pth"))
    assert origin_of(images).reason == ""
    spoil(images)
    assert reason in origin_of(images).reason


def test_a_recovery_from_a_plain_teacher_is_not_guards(tmp_path):
    baseline = origin_of(recover(tmp_path / "a", teacher(tmp_path / "t.pth", 0.0)))
    assert baseline.reason == "it was made at strength 0" and baseline.is_baseline
    words = "made under strength 0, a baseline; mtt buffer.py: 1 of 1 losses left as they are"
    assert baseline.in_words() == words
    torch.save([1], tmp_path / "plain.pth")
    assert "plain.pth', not known to be" in origin_of(recover(tmp_path / "b", tmp_path / "plain.pth")).reason


def test_a_folder_that_several_runs_fill_is_guards_if_all_of_it_is(tmp_path):
    one, other = teacher(tmp_path / "t.pth"), teacher(tmp_path / "u.pth", 2.0)
    images = recover(tmp_path / "images", one)
    assert origin_of(recover(images, one, range(2, 4))).reason == ""
    assert "different penalties" in origin_of(recover(images, other, range(4, 6))).reason
    assert "6 files in it are not of the run" in origin_of(recover(images, one, range(6, 7))).reason
    assert origin_of(recover(images, other, range(7))).reason == ""  # all of it is new
    (images / "new000" / "old.jpg").write_bytes(b"")
    assert "1 files in it are not of the run" in origin_of(recover(images, other, range(7))).reason


def test_under_torchrun_the_first_process_speaks_for_what_others_wrote(tmp_path, monkeypatch):
    made, images = teacher(tmp_path / "t.pth"), tmp_path / "images"
    (images / "new009").mkdir(parents=True)
    older, beside = (images / "new009" / name for name in ("older.jpg", "beside.jpg"))
    older.write_bytes(b"")
    os.utime(older, (1, 1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "1 files in it are not of the run" in origin_of(recover(images, made)).reason
    older.unlink()
    beside.write_bytes(b"")
    os.utime(beside, (time.time() + 60,) * 2)  # while the run goes on
    assert origin_of(recover(images, made)).reason == ""
    monkeypatch.delenv("WORLD_SIZE")
    marker_of(images).unlink()
    assert "1 files in it are not of the run" in origin_of(recover(images, made)).reason


def test_a_recovery_that_did_not_end_is_not_guards_and_can_be_done_again(tmp_path):
    made = teacher(tmp_path / "t.pth")
    images = recover(tmp_path / "images", made, outcome="failed")
    assert "ended as 'failed'" in origin_of(images).reason
    assert origin_of(recover(images, made)).reason == ""


def test_labels_of_another_penalty_than_the_images_are_mixed(tmp_path, capsys):
    images = recover(tmp_path / "images", teacher(tmp_path / "t.pth"))
    provenance = Provenance(LABELS, [f"--data={images}"], later(LABELS))
    torch.load(teacher(tmp_path / "u.pth", 2.0))
    (tmp_path / "labels" / "epoch_0").mkdir(parents=True)
    torch.save([3], tmp_path / "labels" / "epoch_0" / "batch_0.tar")
    provenance.remove()
    provenance.mark()
    reason = "it goes back to runs under different penalties: curvature (strength 1); curvature (strength 2)"
    assert origin_of(tmp_path / "labels").reason.endswith(reason)


def test_pils_own_function_is_given_back():
    image = pytest.importorskip("PIL.Image").Image
    original = image.save
    provenance = Provenance(RECOVERS, (), later(RECOVERS))
    assert image.save is not original
    provenance.remove()
    assert image.save is original


def test_a_step_that_read_nothing_vouches_for_nothing(tmp_path):
    image = pytest.importorskip("PIL.Image").new("L", (2, 2))
    provenance = Provenance(RECOVERS, (), later(RECOVERS))
    (tmp_path / "images" / "new000").mkdir(parents=True)
    image.save(tmp_path / "images" / "new000" / "class.jpg")
    provenance.remove()
    provenance.mark()
    assert "read no file of which a marker could tell" in origin_of(tmp_path / "images").reason
