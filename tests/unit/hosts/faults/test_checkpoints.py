"""Files in which earlier steps left plain data of a few types are read while the faults are mended; no others are."""

import argparse
import collections
import importlib
import pickle
import sys

import numpy as np
import pytest
import torch

from guard_plugin.hosts.faults import Repairs, arguments_refused, find_faults, numbers_refused
from tests.versions import needs_torch

pytestmark = needs_torch(2, 6)  # before, torch.load reads everything

CONTENTS = {
    "arguments": {"model": torch.ones(2), "args": argparse.Namespace(lr=0.1, name="x", list=[1, None])},
    "numbers": [np.float64(0.5), [np.int64(3), np.int32(4), np.bool_(True)], torch.zeros(1)],
}
FAULTS = {"arguments": arguments_refused, "numbers": numbers_refused}


@pytest.fixture
def host(tmp_path, monkeypatch):
    (tmp_path / "reader_of_host.py").write_text("import torch\ndef read(file):\n    return torch.load(file)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("reader_of_host", None)


@pytest.mark.parametrize("kind", CONTENTS)
def test_the_named_types_are_read_while_it_is_mended(host, kind):
    torch.save(CONTENTS[kind], host / "file.pt")
    (found,) = find_faults([FAULTS[kind]("reader_of_host.py")], host)
    assert found.lines == (3,)
    before = set(torch.serialization.get_safe_globals())
    repairs = Repairs([found])
    try:
        read = importlib.import_module("reader_of_host").read
        content = read(host / "file.pt")
    finally:
        repairs.remove()
    assert type(content) is type(CONTENTS[kind]) and str(content) == str(CONTENTS[kind])
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        read(host / "file.pt")


@pytest.mark.parametrize("kind", CONTENTS)
def test_every_other_type_is_refused_as_ever(host, kind):
    (other,) = set(CONTENTS) - {kind}
    torch.save(CONTENTS[other], host / "other.pt")
    torch.save({"args": collections.UserDict(x=1)}, host / "unknown.pt")
    repairs = Repairs(find_faults([FAULTS[kind]("reader_of_host.py")], host))
    try:
        read = importlib.import_module("reader_of_host").read
        for name in ("other.pt", "unknown.pt"):
            with pytest.raises(pickle.UnpicklingError):
                read(host / name)
    finally:
        repairs.remove()


def test_nothing_of_a_file_runs(host):
    class Runs:
        def __reduce__(self):
            return exec, ("raise SystemExit('it ran')",)

    torch.save({"args": argparse.Namespace(x=Runs())}, host / "file.pt")
    faults = [make("reader_of_host.py") for make in FAULTS.values()]
    repairs = Repairs(find_faults(faults, host))
    try:
        with pytest.raises(pickle.UnpicklingError):
            importlib.import_module("reader_of_host").read(host / "file.pt")
    finally:
        repairs.remove()
