"""Run one host three times: plainly, under guard at strength 0, and under guard."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.fork_server import ForkServer, process_environment
from tests.fuzz.host_scripts import Host, draw_host
from tests.fuzz.outcome import Disagreement, generator

__all__ = ["run_case"]

_ROOT = Path(__file__).resolve().parents[2]
_Done = "subprocess.CompletedProcess[str]"


@functools.cache
def _server() -> ForkServer:
    server = ForkServer()
    atexit.register(server.__exit__)
    return server


def run_case(seed: int, number: int) -> str:
    """Run the host of this seed and number; return its outcome. Raises Disagreement; the host's folder is then kept."""
    host, rng = draw_host(seed, number), generator(seed, "hosts", number, "options")
    folder = Path(tempfile.gettempdir(), f"guard-fuzz-host-{os.getpid()}-{seed}-{number}")
    (folder / "host").mkdir(parents=True)
    for name, text in host.files.items():
        (folder / "host" / name).write_text(text)
    off = rng.choice([0, 0, 0, 1, -1, None, None] if not host.doubtful else [0, None])
    try:
        outcome = _compare(host, folder, off, rng)
    except Disagreement as found:
        raise Disagreement(f"{found}\n    the host is in {folder}") from None
    shutil.rmtree(folder)
    return outcome


def _compare(host: Host, folder: Path, off: int | None, rng: Any) -> str:
    plain = _run(folder, "plain")
    if plain.returncode != host.exit_code:
        raise RuntimeError(f"the fuzz wrote a host that does not work:\n{plain.stderr}")
    expect = [] if off is None or host.real + off < 1 else ["--expect", str(host.real + off)]
    off = off if expect else None
    wanted = _wanted_code(host, off)
    for strength in ("0", str(10 ** rng.uniform(-3, 1))):
        name = "zero" if strength == "0" else "guarded"
        form = ["--form", rng.choice(["gradient", "loss"])]
        command = ["--strength", strength, "--h", "0.3", *form, "--ledger", "ledger.json", *host.options, *expect]
        done = _run(folder, name, *command)
        _check(host, folder / name, done, wanted, off, "" if strength != "0" else plain.stdout)
        if strength == "0" and done.returncode == plain.returncode:
            _check_same_files(folder / "plain", folder / name)
        if done.returncode in (2, 3) and host.exit_code == 0:
            return f"ended with {done.returncode}: {', '.join(host.doubtful) or 'another number of losses'}"
    return "as promised" + (f", its own exit code {host.exit_code}" if host.exit_code else "")


def _wanted_code(host: Host, off: int | None) -> int:
    if off == -1 and host.real:
        return 3  # one call too many stops the run, whatever the script would do later
    return host.exit_code or (3 if off or host.real == 0 else 0)


def _check(host: Host, folder: Path, done: Any, wanted: int, off: int | None, stdout: str) -> None:
    where = f"{folder.name} run (exit code {done.returncode}, {host.real} losses on real data): "
    if "Traceback" in done.stderr and host.exit_code != 1 and not host.threaded:
        raise Disagreement(f"{where}traceback:\n{done.stderr[-1500:]}")
    if host.doubtful and done.returncode in {2, 3, host.exit_code} - {0}:
        if "guard: " not in done.stderr.lower() and "error: " not in done.stderr.lower():
            raise Disagreement(f"{where}no reason is given: {done.stderr!r}")
        return
    if done.returncode != wanted:
        raise Disagreement(f"{where}expected exit code {wanted}:\n{done.stderr[-1500:]}")
    ledger = json.loads((folder / "ledger.json").read_text())["loss_calls"]
    if off == -1 and wanted == 3:
        return
    if ledger["guarded"] != host.real:
        raise Disagreement(f"{where}{ledger['guarded']} were guarded:\n{done.stderr[-1500:]}")
    if ledger["seen"] != host.seen:
        raise Disagreement(f"{where}{ledger['seen']} were seen, not {host.seen}:\n{done.stderr[-1500:]}")
    if stdout and done.stdout != stdout:
        raise Disagreement(f"{where}it printed {done.stdout!r}, not {stdout!r}")


def _check_same_files(plain: Path, zero: Path) -> None:
    files = {file.name: file.read_bytes() for file in plain.iterdir()}
    found = {f.name: f.read_bytes() for f in zero.iterdir() if f.name != "ledger.json" and ".guard.json" not in f.name}
    if files != found:
        differ = [name for name in files.keys() | found.keys() if files.get(name) != found.get(name)]
        raise Disagreement(f"at strength 0 these files are not those of the plain run: {', '.join(sorted(differ))}")


def _run(folder: Path, name: str, *options: str) -> Any:
    (folder / name).mkdir()
    script = str(folder / "host" / "main.py")
    command = [script] if name == "plain" else ["-m", "guard_plugin", "run", *options, "auto", script]
    paths = f"{_ROOT}{os.pathsep}{_ROOT / 'adapters'}"
    environment = {**process_environment(), "PYTHONPATH": paths}
    return _server().run(command, cwd=folder / name, environment=environment)
