"""``guard run --repair`` in this process and in those that it starts, on scripts in the shape of hosts'."""

import json

import pytest
import torch

from guard_plugin.files import file_sha256

MODULE = """
import torch


def moved(x):
    return x.to(torch.device("cuda:0")).float()
"""

SCRIPT = """
import sys
import torch
from utils.utils_baseline import moved

print("imported as", __name__, flush=True)


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return moved(torch.tensor([index])) + torch.ones(1).cuda()


if __name__ == "__main__":
    for start in sys.argv[1:]:
        loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context=start)
        print(start, torch.cat(list(loader)).flatten().tolist())
"""

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA there is nothing to repair")


@pytest.fixture
def script(tmp_path):
    """A script and a module with the names of DATM's, which its adapter knows to ask for CUDA."""
    for file, source in (("distill/DATM.py", SCRIPT), ("utils/utils_baseline.py", MODULE)):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(source)
    return tmp_path / "distill" / "DATM.py"


def test_processes_that_begin_anew_are_mended_too(guard, script, tmp_path):
    before = [file_sha256(file) for file in sorted(tmp_path.rglob("*.py"))]
    ways = ["fork", "spawn", "forkserver"]
    done = guard("run", "--repair", "--ledger", "ledger.json", "mtt", script, *ways)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in printed if line.startswith(tuple(ways))] == [f"{way} [1.0, 2.0]" for way in ways]
    assert printed.count("imported as __mp_main__") == 2  # by the two that begin anew, as ever
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert [(fault["name"], fault["at"], fault["repaired"]) for fault in ledger["faults"]] == [
        ("cuda-only", ["distill/DATM.py:14"], True),
        ("cuda-only", ["utils/utils_baseline.py:6"], True),
    ]
    assert [file_sha256(file) for file in sorted(tmp_path.rglob("*.py"))] == before


def test_what_is_not_repaired_is_named_and_stops(guard, script):
    done = guard("run", "mtt", script, "spawn")
    assert done.returncode == 1
    assert "known fault of this host, cuda-only (distill/DATM.py:14): it asks for a CUDA device" in done.stderr
    assert "guard run --repair mends it in memory" in done.stderr
    done = guard("doctor", "mtt", script.parents[1])
    assert done.returncode == 2  # there is no buffer.py to guard here
