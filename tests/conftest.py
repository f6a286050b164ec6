import compileall
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.plugins import installed_plugins
from guard_plugin.versions import WHY_REFERENCE_ONLY
from tests.fork_server import ForkServer, process_environment

ROOT = Path(__file__).resolve().parents[1]
BASELINES = ROOT / "examples" / "baselines"

# Tests run in parallel processes, and small networks gain nothing from threads.
torch.set_num_threads(1)


def write_distribution(folder: Path, name: str, entry_points: str, version: str = "1.0") -> None:
    """Write what pip leaves of an installed distribution beside its modules."""
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (information / "entry_points.txt").write_text(entry_points)


Runner = Callable[..., "subprocess.CompletedProcess[str]"]


# What libstdc++ says where a thread outlives its owner: gloo's now and then do at an interpreter's end.
_ABORTED = "terminate called without an active exception"


def torchrun(folder: Path, environment: dict[str, str], *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run two processes, and once more where gloo has aborted one at its end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    for _ in range(2):
        done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
        if _ABORTED not in done.stderr:
            break
    return done


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[object]:
    """Skip a test that asks for what this version of torch refuses to do."""
    try:
        return (yield)
    except (AssertionError, UnusableInput) as error:
        if WHY_REFERENCE_ONLY and WHY_REFERENCE_ONLY in str(error):
            pytest.skip(WHY_REFERENCE_ONLY)
        raise


@pytest.fixture(autouse=True)
def seeded_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    installed_plugins.cache_clear()
    yield


@pytest.fixture
def baseline() -> Path:
    """Our own DC in the host's shape."""
    return BASELINES / "dc"


@pytest.fixture
def forks(tmp_path: Path) -> Path:
    """A copy of all baselines, to be changed."""
    folder = tmp_path / "forks"
    shutil.copytree(BASELINES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a subprocess."""
    return process_environment()


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    # Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each forked process would compile these modules anew.
    for folder in ("guard_plugin", "adapters", "examples"):
        compileall.compile_dir(ROOT / folder, quiet=2)
    with ForkServer() as server:
        yield server


@pytest.fixture
def python(fork_server: ForkServer, tmp_path: Path, environment: dict[str, str]) -> Runner:
    """Run ``python ARGUMENTS`` in a process of its own, forked from one that has imported torch."""

    def run(
        *arguments: object, cwd: Path = tmp_path, check: bool = False, **extra: str
    ) -> "subprocess.CompletedProcess[str]":
        done = fork_server.run([*map(str, arguments)], cwd=cwd, environment={**environment, **extra})
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def two_ranks(python: Runner) -> Runner:
    """Run what ``torchrun`` would run in two processes, forked."""
    return functools.partial(python, ROOT / "tests" / "two_ranks.py")


@pytest.fixture
def guard(python: Runner) -> Runner:
    """Run the command line as users do, but forked; ``guard_process`` starts a real process, for some 2 s more."""
    return functools.partial(python, "-m", "guard_plugin")


@pytest.fixture
def python_process(tmp_path: Path, environment: dict[str, str]) -> Runner:
    """Run ``python ARGUMENTS`` in a real process: for tests of how processes start and end."""

    def run(*arguments: object, cwd: Path = tmp_path, **extra: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env={**environment, **extra}, capture_output=True, text=True)

    return run


@pytest.fixture
def guard_process(python_process: Runner) -> Runner:
    """Run the command line in a real process."""
    return functools.partial(python_process, "-m", "guard_plugin")
