"""Seams on the stack: of code that lost its file on its way to another process."""

from pathlib import Path

import pytest

from guard_plugin.hosts.seams import Seam, find_definitions
from guard_plugin.injection.calls.stack import OUTSIDE_SEAMS, StackReader

SOURCE = "\n\ndef train(read):\n    return read()\n"


@pytest.fixture
def reader(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(SOURCE)
    return StackReader(tmp_path, find_definitions(Seam("main", "train", "opens", None), script))


def function(file: str, source: str = SOURCE):
    namespace: dict = {}
    exec(compile(source, file, "exec"), namespace)
    return namespace["train"]


@pytest.mark.parametrize("name", ["main.py", "<dynamic-code>", "<string>"])
def test_a_function_is_its_seam_also_where_its_file_is_lost(reader, tmp_path, name):
    file = str(tmp_path / name) if name.endswith(".py") else name
    place = function(file)(reader.read)
    assert place.why_unguarded == "" and place.site == ("main.py:4" if name == "main.py" else None)


@pytest.mark.parametrize(("file", "source"), [("<string>", SOURCE[1:]), (str(Path("/else/main.py")), SOURCE)])
def test_another_function_of_the_name_is_none(reader, file, source):
    assert function(file, source)(reader.read).why_unguarded == OUTSIDE_SEAMS
