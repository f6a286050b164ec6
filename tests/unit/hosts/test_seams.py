"""Seams are found in source, wherever Python would find the name."""

from dataclasses import replace
from pathlib import Path

import pytest

from guard_plugin.errors import SeamError, UnusableInput
from guard_plugin.hosts.seams import MODULE_LEVEL, Seam, find_definitions
from guard_plugin.injection.calls.stack import StackReader

EPOCH = Seam("utils", "epoch", "suspends", parameters=("mode", "net"))
DEF = "def epoch(mode, net):\n    pass\n"


def host(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder / "main.py"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"main": "from utils import epoch\n", "utils": DEF}, ["utils.py:1"]),
        ({"main": "from utils import epoch as e\n", "utils": "\n" + DEF}, ["utils.py:2"]),
        ({"main": "from utils import *\n", "utils": DEF}, ["utils.py:1"]),
        ({"main": "import utils\n", "utils": DEF}, ["utils.py:1"]),
        ({"main": "import utils as u\n", "utils": "@decorated\n" + DEF}, ["utils.py:2"]),
        ({"main": "def f():\n    from utils import epoch\n", "utils": DEF}, ["utils.py:1"]),
        ({"main": "from other import epoch\n", "utils": "", "other": DEF}, ["other.py:1"]),
        ({"main": "import x\n" + DEF, "utils": ""}, ["main.py:2"]),
        ({"main": "from utils import epoch\n" + DEF, "utils": DEF}, ["main.py:2", "utils.py:1"]),
    ],
)
def test_definitions_are_found(tmp_path, files, expected):
    found = find_definitions(EPOCH, host(tmp_path, **files))
    assert [f"{d.file.name}:{d.line}" for d in found] == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"main": "from utils import epoch\n", "utils": "def epoch_(mode, net): pass\n"},
            "expected a function epoch in",
        ),
        ({"main": "from utils import epoch_ as epoch\n", "utils": DEF}, "expected .*main.py to use epoch"),
        (
            {"main": "from other import epoch\n", "utils": DEF},
            "expected the file other.py, which the script imports epoch from, in .*found none",
        ),
        (
            {"main": "from utils import epoch\n", "utils": "def epoch(net, mode): pass\n"},
            r"found epoch\(net, mode\) at",
        ),
        (
            {"main": "from utils import epoch\n", "utils": "def epoch(mode, net, *, aug, **rest): pass\n"},
            r"expected epoch\(mode, net\), found epoch\(mode, net, aug, \*\*rest\)",
        ),
    ],
)
def test_missing_or_misshapen_seams_are_refused(tmp_path, files, message):
    with pytest.raises(SeamError, match="seam utils.epoch: .*" + message):
        find_definitions(EPOCH, host(tmp_path, **files))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("utils:epochs", "expected a function epochs in .*utils.py, found none; did you mean utils:epoch?"),
        ("utils:fit", "found none; its functions: epoch, test; utils alone is the code at its module level"),
        ("main:fit", "found none; its functions: none; main alone is"),
        ("util:epoch", "expected the file util.py in .*, found none; name it as the script imports it, such as"),
    ],
)
def test_a_seam_in_a_users_own_words_is_told_what_it_may_have_been(tmp_path, name, message):
    module, function = name.split(":")
    script = host(tmp_path, main="import utils\n", utils=DEF + "class Run:\n    def test(self): pass\n")
    with pytest.raises(SeamError, match=message) as told:
        find_definitions(Seam(module, function, "opens", parameters=None), script)
    assert "adapter" not in str(told.value)


def test_source_that_does_not_parse_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="cannot be read as Python source"):
        find_definitions(EPOCH, host(tmp_path, main="def", utils=DEF))


def test_the_stack_tells_the_seams_and_the_site(tmp_path):
    script = host(
        tmp_path,
        main="from utils import epoch\ndef main():\n    count = 7\n    return [epoch('train', read) for _ in '1'][0]\n",
        utils="def plain(f): return f\n@plain\ndef epoch(mode, net):\n    return (lambda: net())()\n",
    )
    opening = Seam("main", "main", "opens")
    whole = Seam("main", MODULE_LEVEL, "opens")
    definitions = [d for seam in (EPOCH, opening, whole) for d in find_definitions(seam, script)]
    reader = StackReader(tmp_path, definitions)
    namespace: dict = {}
    utils: dict = {}
    exec(compile((tmp_path / "utils.py").read_text(), str(tmp_path / "utils.py"), "exec"), utils)
    source = script.read_text().replace("from utils import epoch\n", "\n")
    exec(compile(source, str(script), "exec"), namespace)
    namespace.update(epoch=utils["epoch"], read=reader.read)
    place = namespace["main"]()
    assert place.site == "utils.py:4"
    assert [seam.name for seam in place.seams] == ["utils.epoch", "main.main"]
    assert place.why_unguarded == "suspended: utils.epoch"
    own = [seam for seam in place.seams if seam != EPOCH]
    assert opening in own and replace(place, seams=tuple(own)).why_unguarded == ""
    assert replace(place, seams=()).why_unguarded == "outside every seam"
    assert place.locals_of("main.main")["count"] == 7
    assert place.locals_of("nowhere") is None
    exec(compile("place = read()\n", str(script), "exec"), namespace)
    assert [seam.name for seam in namespace["place"].seams] == ["main"]
    assert reader.read().site is None
