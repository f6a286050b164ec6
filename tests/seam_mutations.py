"""Check that a host whose seam was changed is never run as if it were guarded. Works on any host and adapter.

On copies of the host, each seam of a script is changed in one way at a time: renamed, renamed with all its uses, given
other parameters. `guard doctor` must exit with 2 and name the seam, and `guard run` with 2 or 3:

    python -m tests.seam_mutations mtt /path/to/mtt-distillation buffer.py --dataset CIFAR10 --num_experts 1 ...

The arguments after the script are its own; make them such that a run that is not refused is short. Exit code 1 if one
of the changed hosts passed.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from guard_plugin.hosts.seams import MODULE_LEVEL, Definition
from guard_plugin.plugins import Plugins, look_up

Guard = Callable[..., "subprocess.CompletedProcess[str]"]


def _replace_line(file: Path, line: int, pattern: str, replacement: str) -> None:
    lines = file.read_text().splitlines(keepends=True)
    lines[line - 1], n = re.subn(pattern, replacement, lines[line - 1], count=1)
    if n != 1:
        raise ValueError(f"{file}:{line}: expected {pattern}")
    file.write_text("".join(lines))


def rename(host: Path, seam: Definition) -> None:
    """As when the function was moved away: its callers fail."""
    name = seam.seam.function
    _replace_line(seam.file, seam.line, rf"def {name}\(", f"def {name}_renamed(")


def rename_everywhere(host: Path, seam: Definition) -> None:
    """The host still runs."""
    name = seam.seam.function
    for file in host.rglob("*.py"):
        file.write_text(re.sub(rf"\b{name}\b", f"{name}_renamed", file.read_text()))


def add_first_parameter(host: Path, seam: Definition) -> None:
    comma = ", " if seam.parameters else "=None"
    _replace_line(seam.file, seam.line, r"\(", f"(added{comma}")


def add_last_parameter(host: Path, seam: Definition) -> None:
    """The host still runs."""
    source = seam.file.read_text()
    node = next(n for n in ast.walk(ast.parse(source)) if getattr(n, "lineno", 0) == seam.line and hasattr(n, "args"))
    first = node.body[0]
    head = source.splitlines(keepends=True)[: first.lineno - 1]
    text = "".join(head)
    end = re.search(r",?\s*\)(\s*->[^:]*)?\s*:\s*(#[^\n]*)?\n\s*$", text)
    comma = ", " if seam.parameters else ""
    text = f"{text[: end.start()]}{comma}added=None){end.group(1) or ''}:\n"
    seam.file.write_text(text + "".join(source.splitlines(keepends=True)[first.lineno - 1 :]))


def rename_first_parameter(host: Path, seam: Definition) -> None:
    name = seam.parameters[0]
    first = seam.file.read_text().splitlines()[seam.line - 1]
    line = seam.line if name in first.partition("(")[2] else seam.line + 1
    _replace_line(seam.file, line, rf"\b{name}\b", f"{name}_renamed")


MUTATIONS: dict[str, Callable[[Path, Definition], None]] = {
    "renamed": rename,
    "renamed everywhere": rename_everywhere,
    "with another parameter first": add_first_parameter,
    "with another parameter last": add_last_parameter,
    "with its first parameter renamed": rename_first_parameter,
}


def mutants(adapter_name: str, host: Path, script: str, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield, for each seam of a script and each mutation, what was changed, the seam's name, and the changed copy."""
    adapter = look_up("adapter", adapter_name, Plugins().adapters)
    for name, mutate in MUTATIONS.items():
        for position, seam in enumerate(_seams(adapter, host, script)):
            if name == "with its first parameter renamed" and not seam.parameters:
                continue
            copy = folder / f"{position} {name}" / host.name
            # Hosts may share a folder beside theirs, as our own baselines do.
            shutil.copytree(host, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", "data", "buffers"))
            if (host.parent / "common").is_dir():
                shutil.copytree(host.parent / "common", copy.parent / "common")
            mutate(copy, _seams(adapter, copy, script)[position])
            yield f"{seam.seam.name} {name}", seam.seam.name, copy


def _seams(adapter: object, host: Path, script: str) -> list[Definition]:
    profile = adapter.profile((host / script).resolve())
    found = [d for d in adapter.locate(profile, host / script) if d.seam.function != MODULE_LEVEL]
    if not found:
        raise ValueError(f"{script} has no seam to change")
    return found


def check(
    adapter: str, host: Path, script: str, arguments: Sequence[str], folder: Path, guard: Guard | None = None
) -> Iterator[tuple[str, str]]:
    """Yield each mutation with what is wrong; nothing where it was refused as it must be.

    ``guard`` runs the command line in a folder ``cwd``; by default in a new process.
    """
    guard = guard or _guard
    for what, seam, copy in mutants(adapter, host, script, folder):
        doctor = guard("doctor", adapter, copy, cwd=copy.parent)
        run = guard("run", "--strength", "1", "--h", "0.5", adapter, copy / script, *arguments, cwd=copy.parent)
        wrong = []
        if doctor.returncode != 2 or f"seam {seam}:" not in doctor.stdout:
            wrong.append(f"doctor exited with {doctor.returncode}")
        if run.returncode not in (2, 3) or f"seam {seam}:" not in run.stderr:
            wrong.append(f"run exited with {run.returncode}: {run.stderr.strip().splitlines()[-1:]}")
        yield what, "; ".join(wrong)
        shutil.rmtree(copy.parent)


def _guard(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guard_plugin", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("host", type=Path)
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        for what, wrong in check(args.adapter, args.host.resolve(), args.script, args.arguments, Path(folder)):
            print(f"{'SURVIVED' if wrong else 'refused':<9} {what}{': ' + wrong if wrong else ''}", flush=True)
            survived += bool(wrong)
    print(f"{survived} changed host(s) passed as if nothing had happened" if survived else "all were refused")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
