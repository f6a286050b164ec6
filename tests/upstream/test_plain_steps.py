"""Every step of docs/pipelines.md at strength 0 writes what the plain script writes, to the last bit.

Both begin from the same files, seeds and clock; the plain script takes "cuda" for the CPU (no_cuda/sitecustomize.py).
Where a known fault ends it, or ``--repair`` changes what it writes, there is nothing to compare with; these are listed.
"""

import io
import re
import shlex
import shutil

import pytest
import torch

from tests.upstream.conftest import of_a_host
from tests.upstream.test_chains import HOSTS, SEEDED, hosts_stay_as_they_are, pytestmark
from tests.upstream.test_pipelines import CHAINS, prepare

__all__ = ["hosts_stay_as_they_are", "pytestmark"]

# Hosts take seeds from the milliseconds, and divide by seconds that have passed: the clock all but stands still.
FROZEN = f"{SEEDED}\nimport sys, time\nbegan = time.monotonic()\n"
FROZEN += "time.time = lambda: 1.7e9 + 1e-5 * (time.monotonic() - began)\n"
PLAIN = f"{FROZEN}sys.argv[:1] = []\nsys.path[0] = sys.argv[0].rpartition('/')[0]\n"
PLAIN += "runpy.run_path(sys.argv[0], run_name='__main__')"
GUARD = f"{FROZEN}from guard_plugin.cli import main\nmain()"

# What the plain script ends with, or that it ends well and writes what it should not.
ENDS = {
    "SRe2L/SRe2L/*small_dataset/recover_cifar.py": "Missing key",  # module-prefix
    "SRe2L/SRe2L/*small_dataset/relabel_cifar.py": "Missing key",
    "SRe2L/CDA/recover_cda_tiny.py": "weights_only",  # arguments-in-checkpoint
    "tiny-imagenet/classification/train_kd.py": "weights_only",
    "SRe2L/SRe2L/validate/train_FKD.py": "Error",  # fetcher-edited-by-hand
    "tesla/buffer.py": "teacher_label",  # teacher-label-undefined
    "DatasetCondensation/main.py": "single memory location",  # augments-one-image
    "mtt-distillation/buffer.py": "",  # snapshots-alias
    "DATM/buffer/buffer_FTD.py": "",
    "FTD-distillation/buffer/buffer_FTD.py": "",
}


def content(file):
    """Return what a file holds; of checkpoints, without the arguments, which name the device."""
    if file.name != "checkpoint.pth":
        return file.read_bytes()
    held = torch.load(file, weights_only=False)
    del held["args"]
    torch.save(held, again := io.BytesIO())
    return again.getvalue()


def written(folder):
    """Return what is in a folder; wandb's name of the run differs."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.parts[len(folder.parts)] != "data"]
    return {
        re.sub(r"dummy-\w+", "RUN", str(file.relative_to(folder))): content(file)
        for file in files
        if not file.name.endswith((".guard.json", "guard_ledger.json"))
    }


@pytest.mark.parametrize("title", CHAINS)
def test_at_strength_zero_a_step_is_the_plain_script(python_process, tmp_path, title):
    guarded, plain = tmp_path / "guarded", tmp_path / "plain"
    guarded.mkdir()
    prepare(title, guarded)
    for command in CHAINS[title]:
        run, *words = shlex.split(command)
        if run != "run":
            continue
        at = next(number for number, word in enumerate(words) if word.startswith("HOSTS/"))
        options, name, arguments = words[:at], words[at].removeprefix("HOSTS/"), words[at + 1 :]
        shutil.rmtree(plain, ignore_errors=True)
        shutil.copytree(guarded, plain)
        environment = {key: value for key, value in of_a_host().items() if key != "HOST_WORKERS"}
        environment["PYTHONPATH"] += f":{HOSTS / name.split('/')[0]}"
        ended = python_process("-c", PLAIN, HOSTS / name, *arguments, cwd=plain, **environment)
        asked = ("run", "--strength", "0", *options, HOSTS / name, *arguments)
        done = python_process("-c", GUARD, *asked, cwd=guarded, WANDB_MODE="disabled")
        assert done.returncode == 0, done.stderr
        if "--teacher" in options:  # only guard has it: the plain script downloads another network
            continue
        if ENDS.get(name):
            assert ended.returncode and ENDS[name] in ended.stderr, ended.stderr
            continue
        assert ended.returncode == 0, ended.stderr
        before, after = written(plain), written(guarded)
        assert before.keys() == after.keys()
        assert (before == after) == (name not in ENDS), [file for file in before if before[file] != after[file]]
