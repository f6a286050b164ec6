import os
import platform
import subprocess
import sys

import pytest

ASK = "from guard_plugin.injection.allocator import returns_memory; print(returns_memory())"
KEEP = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
@pytest.mark.parametrize(("said", "answer"), [({}, "True"), (KEEP, "False")], ids=["default", "told to keep it"])
def test_glibc_returns_the_memory_of_large_tensors_unless_told_otherwise(said, answer):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**environment, **said}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == answer
