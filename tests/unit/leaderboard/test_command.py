import json

import pytest
from click.testing import CliRunner

from guard_plugin.commands.leaderboard import leaderboard
from guard_plugin.errors import UnusableInput
from tests.unit.leaderboard.boards import alone, folder


def run(*arguments):
    return CliRunner().invoke(leaderboard, [*map(str, arguments)], catch_exceptions=False)


def test_json_is_all_that_is_printed(tmp_path):
    made = folder(tmp_path / "ours"), alone(tmp_path / "alice.json", seed=1)
    told = json.loads(run(*made, "--json", "--html", tmp_path / "page.html").stdout)
    assert len(told["rankings"]) == 1 and (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_nothing_is_written_where_one_entry_is_bad(tmp_path):
    with pytest.raises(UnusableInput, match="1 of 2 cannot be ranked, so nothing was written"):
        run(folder(tmp_path / "ours"), tmp_path / "nowhere", "--html", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_no_entry_is_an_error_of_use():
    assert run().exit_code == 2
