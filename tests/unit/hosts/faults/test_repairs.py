"""Known faults of a host are found in its source, and mended without touching it."""

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts.faults import AS_IT_IS, Fault, Repairs, find_faults

FAULT = Fault("answer", "lib_of_host.py", r"= 41\b", "= 42", "it is wrong")


@pytest.fixture
def host(tmp_path, monkeypatch) -> Path:
    (tmp_path / "lib_of_host.py").write_text("# comment\nanswer = 41\nanswer_too = 41\nother = 410\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("lib_of_host", None)


def test_a_fault_is_found_with_its_lines_where_it_does_harm(host):
    (found,) = find_faults([FAULT], host)
    assert found.lines == (2, 3) and found.describe() == "answer (lib_of_host.py:2,3): it is wrong"
    assert found.to_json(repaired=True)["at"] == ["lib_of_host.py:2", "lib_of_host.py:3"]
    assert find_faults([Fault("a", "lib_of_host.py", "= 41", "", "", only_if=lambda: False)], host) == []
    assert find_faults([Fault("a", "lib_of_host.py", "= 43", "", "")], host) == []
    assert find_faults([Fault("a", "missing.py", "= 41", "", "")], host) == []


def test_a_host_that_mended_it_elsewhere_has_no_fault(host):
    fault = Fault("a", "lib_of_host.py", "= 41", "", "", unless=("main.py", "answer = 42"))
    assert find_faults([fault], host)
    (host / "main.py").write_text("import lib_of_host\nlib_of_host.answer = 42\n")
    assert not find_faults([fault], host)


def test_a_module_is_read_as_if_it_were_right_and_its_file_stays(host):
    before = (host / "lib_of_host.py").read_bytes()
    repairs = Repairs(find_faults([FAULT], host))
    module = importlib.import_module("lib_of_host")
    assert (module.answer, module.answer_too, module.other) == (42, 42, 410)
    assert module.__file__ == str(host / "lib_of_host.py")
    assert repairs.source(host / "lib_of_host.py").encode().count(b"\n") == before.count(b"\n")
    repairs.remove()
    repairs.remove()
    assert repairs not in sys.meta_path and (host / "lib_of_host.py").read_bytes() == before
    del sys.modules["lib_of_host"]
    importlib.invalidate_caches()
    assert importlib.import_module("lib_of_host").answer == 41


def test_other_modules_are_imported_as_ever(host):
    (host / "other_of_host.py").write_text("answer = 41\n")
    repairs = Repairs(find_faults([FAULT], host))
    try:
        assert importlib.import_module("other_of_host").answer == 41
    finally:
        repairs.remove()
        del sys.modules["other_of_host"]


def test_comments_are_no_faults_and_no_mending(host):
    (host / "lib_of_host.py").write_text("# it was = 41\nanswer = 42  # not = 41\ntext = '# = 41'\n")
    (found,) = find_faults([FAULT], host)
    assert found.lines == (3,)  # in a string, where a # begins no comment
    (host / "lib_of_host.py").write_text("answer = 41  # = 41\n")
    repairs = Repairs(find_faults([FAULT], host))
    repairs.remove()
    assert repairs.source(host / "lib_of_host.py") == "answer = 42  # = 41\n"
    fault = Fault("a", "lib_of_host.py", "= 41", "", "", unless=("main.py", "answer"))
    (host / "main.py").write_text("# the answer\n")
    assert find_faults([fault], host)


def test_a_file_in_another_encoding_is_read_as_python_reads_it(host):
    (host / "lib_of_host.py").write_bytes("# coding: latin-1\nname = 'é'\nanswer = 41\n".encode("latin-1"))
    (found,) = find_faults([FAULT], host)
    assert found.lines == (3,)
    repairs = Repairs([found])
    module = importlib.import_module("lib_of_host")
    repairs.remove()
    assert (module.name, module.answer) == ("é", 42)


def test_several_faults_of_one_line_are_mended_beside_each_other(host):
    (host / "lib_of_host.py").write_text("values = [41, 7, 41]; answer = 41\n")
    faults = [
        Fault("list", "lib_of_host.py", "41(?=[],])", "forty", "", also=((r"\b7\b", "seven"),)),
        Fault("answer", "lib_of_host.py", "= 41", "= 42", ""),
        Fault("seen", "lib_of_host.py", "answer = 41", AS_IT_IS, ""),
    ]
    repairs = Repairs(find_faults(faults, host))
    repairs.remove()
    assert repairs.source(host / "lib_of_host.py") == "values = [forty, seven, forty]; answer = 42\n"
    overlapping = Repairs(find_faults([*faults, Fault("more", "lib_of_host.py", "er = 41", "er = 43", "")], host))
    overlapping.remove()
    with pytest.raises(UnusableInput, match="lib_of_host.py:1: two of the faults .*more"):
        overlapping.source(host / "lib_of_host.py")


def test_what_is_around_the_faulty_code_counts(host):
    fault = Fault("answer", "lib_of_host.py", r"(?<=answer )= 41(?=\n)", "= 42", "")
    repairs = Repairs(find_faults([fault], host))
    repairs.remove()
    assert repairs.source(host / "lib_of_host.py") == "# comment\nanswer = 42\nanswer_too = 41\nother = 410\n"


def test_what_holds_meanwhile_begins_once_and_ends(host):
    events = []

    @contextmanager
    def meanwhile():
        events.append("on")
        yield
        events.append("off")

    faults = [Fault(name, "lib_of_host.py", "= 41", AS_IT_IS, "", meanwhile=meanwhile) for name in "ab"]
    assert find_faults(faults, host) and events == []
    repairs = Repairs(find_faults(faults, host))
    assert events == ["on"]
    repairs.remove()
    repairs.remove()
    assert events == ["on", "off"]


def test_what_cannot_begin_leaves_nothing_behind(host):
    def meanwhile():
        raise UnusableInput("no")

    before = list(sys.meta_path)
    with pytest.raises(UnusableInput):
        Repairs(find_faults([Fault("a", "lib_of_host.py", "= 41", "= 42", "", meanwhile=meanwhile)], host))
    assert sys.meta_path == before
