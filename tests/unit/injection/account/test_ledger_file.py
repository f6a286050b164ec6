"""Where a ledger may be written, and what becomes of what was there."""

import json
import os
from pathlib import Path

import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.files import write_json
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.account.ledger_file import LedgerFile


def ledger() -> Ledger:
    return Ledger(adapter="dc", script="main.py", penalty={}, strength=1.0, unguarded="", definitions=[], versions={})


@pytest.fixture
def script(tmp_path) -> Path:
    file = tmp_path / "main.py"
    file.write_text("the script")
    return file


def outcome(file: Path) -> str:
    return json.loads(file.read_text())["outcome"]


def test_a_ledger_says_running_with_process_and_time_until_it_is_completed(tmp_path, script):
    old, new = ledger(), ledger()
    old.end("complete")
    write_json(tmp_path / "l.json", old.to_json())
    file = LedgerFile(tmp_path / "l.json", script)
    assert outcome(tmp_path / "l.json") == "complete"
    file.begin(new)
    found = json.loads((tmp_path / "l.json").read_text())
    assert found["outcome"] == "running" and found["process"]["id"] == os.getpid()
    assert found["process"]["started"].endswith("+00:00") and found["process"]["ended"] is None
    new.end("complete")
    file.complete(new)
    found = json.loads((tmp_path / "l.json").read_text())
    assert found["outcome"] == "complete" and found["process"]["ended"] >= found["process"]["started"]


@pytest.mark.parametrize("content", ["the script", "{}", "[]", '{"schema": 1}', "\0", "[" * 100_000])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_no_file_that_is_no_ledger_is_overwritten(tmp_path, script, content, link):
    other = named = tmp_path / "other"
    other.write_text(content)
    if link:
        named = tmp_path / "named"
        link(other, named)
    with pytest.raises(UnusableInput, match="a new file or a ledger, found another file"):
        LedgerFile(named, script)
    assert other.read_text() == content


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_script_is_not_overwritten_even_an_empty_one(tmp_path, script, link):
    script.write_text("")
    link(script, tmp_path / "named")
    for file in (script, tmp_path / "named"):
        with pytest.raises(UnusableInput, match="is the script itself"):
            LedgerFile(file, script)


def test_a_symbolic_link_is_followed_and_stays_one(tmp_path, script):
    (tmp_path / "named").symlink_to(tmp_path / "l.json")
    LedgerFile(tmp_path / "named", script).begin(ledger())
    assert (tmp_path / "named").is_symlink() and outcome(tmp_path / "l.json") == "running"


def test_a_full_device_is_found_early_and_stays_a_device(script):
    with pytest.raises(UnusableInput, match="cannot be written to /dev/full: No space left"):
        LedgerFile(Path("/dev/full"), script)
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize("obstacle", ["removed", "a file"])
def test_a_folder_that_vanished_is_not_made_again_and_the_text_is_shown(tmp_path, script, capsys, obstacle):
    folder = tmp_path / "folder"
    folder.mkdir()
    file, new = LedgerFile(folder / "l.json", script), ledger()
    file.begin(new)
    (folder / "l.json").unlink()
    folder.rmdir()
    if obstacle == "a file":
        folder.touch()
    new.end("complete")
    with pytest.raises(UnusableInput, match="cannot be written to"):
        file.complete(new)
    assert json.loads(capsys.readouterr().err)["outcome"] == "complete" and not folder.is_dir()


def test_a_pipe_gets_one_ledger_the_completed_one(tmp_path, script):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    file, new = LedgerFile(tmp_path / "pipe", script), ledger()
    file.begin(new)
    new.end("complete")
    file.complete(new)
    assert json.loads(os.read(reader, 2**16))["outcome"] == "complete" and os.read(reader, 1) == b""
    os.close(reader)


def test_a_pipe_that_nobody_reads_any_more_is_told(tmp_path, script, capsys):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    file = LedgerFile(tmp_path / "pipe", script)
    os.close(reader)
    with pytest.raises(UnusableInput, match="Broken pipe"):
        file.complete(ledger())
    assert json.loads(capsys.readouterr().err)["adapter"] == "dc"
