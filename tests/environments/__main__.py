"""Build the environments that users have, and run the core's tests in each.

    python -m tests.environments [NAME ...] [--folder FOLDER]

Without a name, all of them. One that was built before is used again. Of each is shown what pip would move of it, which
must be nothing, and what the tests gave. An environment whose Python is not on this machine is left out, and named.
Exit code 1 if anything fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TESTS = (
    *("tests/unit/penalties", "tests/unit/injection", "tests/unit/hosts", "tests/unit/test_plugins.py"),
    *(f"tests/e2e/test_{name}.py" for name in ("launch", "children", "run_auto", "run_dc", "run_paths")),
)


@dataclass(frozen=True)
class Environment:
    """A Python, what its user has installed, and what the tests need beside it."""

    python: str
    pins: Sequence[str]
    for_tests: Sequence[str] = ("scikit-learn",)


# What hosts pin: README.md of each, or its requirements (docs/environments.md names them).
ENVIRONMENTS: Mapping[str, Environment] = {
    "py39-torch1.11": Environment(
        "3.9", ("torch==1.11.0", "torchvision==0.12.0", "numpy==1.21.2"), ("scikit-learn<1.3", "scipy<1.11")
    ),
    "py39-torch2.0": Environment("3.9", ("torch==2.0.1", "torchvision==0.15.2", "numpy<2")),
    "py39-torch2.3": Environment("3.9", ("torch==2.3.0", "torchvision==0.18.0", "numpy<2")),
    "py311-torch2.0": Environment("3.11", ("torch==2.0.1", "torchvision==0.15.2", "numpy<2")),
    "py311-torch2.1": Environment("3.11", ("torch==2.1.0", "torchvision==0.16.0", "numpy<2")),
    "py311-newest": Environment("3.11", ("torch", "torchvision", "numpy")),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.environments", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ENVIRONMENTS)}; by default all")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-environments", help="where they are built")
    given = parser.parse_args()
    unknown = set(given.names) - set(ENVIRONMENTS)
    if unknown:
        parser.error(f"unknown environment {', '.join(sorted(unknown))}: expected {', '.join(ENVIRONMENTS)}")
    results = [_try(name, given.folder.absolute()) for name in given.names or ENVIRONMENTS]
    sys.exit(not all(results))


def _try(name: str, folder: Path) -> bool:
    environment = ENVIRONMENTS[name]
    interpreter = _find_python(environment.python)
    if interpreter is None:
        print(f"{name}: left out, as there is no Python {environment.python} here", flush=True)
        return True
    python = _build(folder / name, interpreter, environment)
    moved = _moved(python)
    print(f"{name}: {_versions(python)}; pip install moves {', '.join(moved) or 'nothing'}", flush=True)
    _call(python, "-m", "pip", "install", "-q", "--no-deps", "-e", ".")
    began = time.monotonic()
    tested = _run(python, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "-r", "", *TESTS)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    os.environ["GUARD_DISTIL_WITH"] = str(python)
    travelled = _run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/environments")
    return not moved and tested and travelled


def _find_python(version: str) -> str | None:
    """Find an interpreter that runs: on PATH, or among pyenv's."""
    named = [shutil.which(f"python{version}")]
    pyenvs = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in (*named, *map(str, pyenvs)):
        if candidate and subprocess.run([candidate, "-m", "venv", "-h"], capture_output=True).returncode == 0:
            return candidate
    return None


def _build(folder: Path, interpreter: str, environment: Environment) -> Path:
    """Make a virtual environment with what its user has; return its Python."""
    python, built = folder / "bin" / "python", folder / "built"
    wanted = json.dumps([environment.pins, environment.for_tests])
    if not built.exists() or built.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
        _call(python, "-m", "pip", "install", "-q", "--upgrade", "pip")
        _call(python, "-m", "pip", "install", "-q", *environment.pins)
        # Before the tests' own packages: what a user's pip would say is asked of what a user has.
        (folder / "moved.json").write_text(json.dumps(_would_move(python)))
        needed = ("pluggy", "click", "tqdm", "pytest>=8", "pytest-xdist>=3", "hatchling", *environment.for_tests)
        _call(python, "-m", "pip", "install", "-q", *environment.pins, *needed)
        built.write_text(wanted)
    return python


def _moved(python: Path) -> list[str]:
    return list(dict.fromkeys([*json.loads((python.parents[1] / "moved.json").read_text()), *_would_move(python)]))


def _would_move(python: Path) -> list[str]:
    """Return the installed packages that pip would replace to install this project."""
    report = _output(python, *("-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", "."))
    listed = json.loads(_output(python, "-m", "pip", "list", "--format", "json"))
    installed = {one["name"].lower().replace("_", "-") for one in listed} - {"guard-plugin"}
    wanted = [one["metadata"]["name"].lower().replace("_", "-") for one in json.loads(report)["install"]]
    return sorted(installed & set(wanted))


def _versions(python: Path) -> str:
    shown = "import sys, torch, numpy; print(sys.version.split()[0], torch.__version__, numpy.__version__)"
    return "Python {}, torch {}, numpy {}".format(*_output(python, "-c", shown).split())


def _call(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT)


def _run(*command: str | Path) -> bool:
    return subprocess.run([str(word) for word in command], cwd=ROOT).returncode == 0


def _output(*command: str | Path) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
