"""A process that begins anew gets the faults with what it is prepared with (tests/e2e/test_repair.py starts some)."""

import importlib
import multiprocessing.spawn
import pickle
import sys
import types
from contextlib import contextmanager

import pytest

from guard_plugin.hosts.faults import Fault, Repairs, find_faults

ACTIVE: list[str] = []


@contextmanager
def active():
    ACTIVE.append("on")
    yield
    ACTIVE.pop()


FAULTS = [
    Fault("answer", "lib_of_host.py", "= 41", "= 42", "it is wrong", only_if=lambda: True, meanwhile=active),
    Fault("question", "script.py", "= 1", "= 2", "it is wrong"),
]


@pytest.fixture
def host(tmp_path, monkeypatch):
    (tmp_path / "lib_of_host.py").write_text("answer = 41\n")
    (tmp_path / "script.py").write_text("question = 1\n")
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("lib_of_host", None)
    ACTIVE.clear()


def prepared() -> bytes:
    """What a process that begins anew is given, without the key that only multiprocessing itself may pickle."""
    data = multiprocessing.spawn.get_preparation_data("child")
    return pickle.dumps({key: value for key, value in data.items() if key != "authkey"})


def test_it_reads_modules_and_the_script_mended(host):
    repairs = Repairs(find_faults(FAULTS, host))
    given = prepared()
    repairs.remove()
    assert ACTIVE == []
    data = pickle.loads(given)  # before it imports anything of the host
    child = data["guard_plugin"]
    try:
        assert ACTIVE == ["on"] and "init_main_from_path" not in data
        assert importlib.import_module("lib_of_host").answer == 42
        spec = importlib.util.find_spec(data["init_main_from_name"])
        namespace = {}
        exec(spec.loader.get_code(spec.name), namespace)
        assert namespace["question"] == 2 and spec.origin == str(host / "script.py")
        assert pickle.loads(prepared())["guard_plugin"].remove() is None  # and hands it on
    finally:
        child.remove()


def test_a_script_without_a_fault_is_found_as_ever(host):
    repairs = Repairs(find_faults(FAULTS[:1], host))
    data = multiprocessing.spawn.get_preparation_data("child")
    repairs.remove()
    assert data["init_main_from_path"] == str(host / "script.py") and "init_main_from_name" not in data


def test_nothing_is_added_without_faults_and_nothing_stays(host):
    plain = multiprocessing.spawn.get_preparation_data
    none = Repairs([])
    assert multiprocessing.spawn.get_preparation_data is plain
    none.remove()
    repairs = Repairs(find_faults(FAULTS, host))
    assert multiprocessing.spawn.get_preparation_data is not plain
    repairs.remove()
    repairs.remove()
    assert multiprocessing.spawn.get_preparation_data is plain and repairs not in sys.meta_path
