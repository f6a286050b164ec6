import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Runner

SHARED = ROOT.parent / "shared"


def materialize(layout: str, folder: Path, *, train: int, test: int) -> None:
    """Write so many real images of each class, in a layout that hosts read."""
    command = [sys.executable, SHARED / "data" / "materialize.py", layout, folder, "--train", train, "--test", test]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def of_a_host(lacks: str = "") -> dict[str, str]:
    """Return what a host needs in its environment on a machine without CUDA, and without the packages in ``lacks``."""
    path = [str(Path(__file__).parent / "no_cuda"), str(SHARED / "offline"), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "WANDB_MODE": "disabled",
        "HOST_IMPORTS": lacks,
        "HOST_WORKERS": "0",
    }


@pytest.fixture
def guard(guard_process: Runner) -> Runner:
    """Real processes: the hosts' stand-ins for what they download are installed by a sitecustomize.py."""
    return guard_process
