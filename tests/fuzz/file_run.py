"""Damage a file, give it to the command that reads it, and look at how the command ends."""

from __future__ import annotations

import atexit
import functools
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from guard_plugin.cli import main
from guard_plugin.networks.architectures import build_network
from tests.fuzz.damage import damage
from tests.fuzz.outcome import Disagreement, generator

__all__ = ["run_case"]

_SECONDS = 60
_MEMORY = 16 << 30  # bytes of address space, of which libraries take most
_SMALL = "--dataset images.npz --data . --arch MLP --attacks fgsm --eps 8/255 --n-examples 4"
_STUDENTS = f"benchmark --out out {_SMALL} --seeds 1"
_MTT = "logged_files/digits/run/images_best.pt"
_NETWORK = f"benchmark {_SMALL} --checkpoint network.pth --normalization none --ledger ledger.json"
_SPECTRUM = "curvature --checkpoint network.pth --arch MLP --dataset images.npz --data . --h 0.1 --normalization none"

_COMMANDS: tuple[tuple[str, str], ...] = (
    ("distilled.pt", f"{_STUDENTS} --distilled distilled.pt --adapter plain"),
    ("distilled.npz", f"{_STUDENTS} --distilled distilled.npz --adapter plain"),
    ("res_DC_digits_MLP_1ipc.pt", f"{_STUDENTS} --distilled res_DC_digits_MLP_1ipc.pt --adapter dc"),
    ("logged_files/digits/run/images_best.pt", f"{_STUDENTS} --distilled {_MTT} --adapter mtt"),
    ("logged_files/digits/run/labels_best.pt", f"{_STUDENTS} --distilled {_MTT} --adapter mtt"),
    ("images.npz", f"{_NETWORK} --out out"),
    ("network.pth", f"{_NETWORK} --out out"),
    ("network.pth", f"{_SPECTRUM} --n-examples 2 --out spectrum"),
    ("ledger.json", f"{_NETWORK} --out out"),
    ("a/results.json", "compare a b --html page.html"),
    ("a/results.json", "compare a b"),
    ("a/results.json", f"{_NETWORK} --out a"),
    ("a/fingerprint.json", f"{_NETWORK} --out a"),
    ("a/records/student-0/clean.npz", "compare a b --html page.html"),
    ("a/records/student-0/fgsm.npz", "compare a b"),
    ("a/records/student-0/fgsm.npz", f"{_NETWORK} --out a"),
)
"""Which file is damaged, and the command that reads it."""


@dataclass(frozen=True)
class _Done:
    """How a command ended: ``code`` is None if it was killed at the end of its time."""

    code: int | None
    stderr: str


def run_case(seed: int, number: int) -> str:
    """Damage one file, as this seed and number say, and read it; return the outcome. Raises Disagreement."""
    rng = generator(seed, "files", number)
    name, command = rng.choice(_COMMANDS)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = Path(folder, "work")
        shutil.copytree(_good_files(), there)
        what = damage(there / name, rng)
        done = _run(there, command.split())
        words = f"{name}, {what}: guard {command.split()[0]}"
        try:
            _check(done, words)
        except Disagreement:
            kept = Path(tempfile.gettempdir(), f"guard-fuzz-file-{os.getpid()}-{seed}-{number}")
            shutil.copytree(there, kept, dirs_exist_ok=True)
            raise Disagreement(f"{_trouble(done, words)}\n    in {kept}: guard {command}") from None
    return "read" if done.code == 0 else "refused"


def _check(done: _Done, words: str) -> None:
    trouble = _trouble(done, words)
    if trouble:
        raise Disagreement(trouble)


def _trouble(done: _Done, words: str) -> str:
    last = done.stderr.strip()[-600:]
    if done.code is None:
        return f"{words} did not end in {_SECONDS} s"
    if "Traceback" in done.stderr or done.code not in (0, 2):
        return f"{words} ended with {done.code}:\n{last}"
    if done.code == 2 and len(last) < 20:
        return f"{words} was refused without a reason: {last!r}"
    if "\x1b" in done.stderr or "\x07" in done.stderr:
        return f"{words} printed a terminal's escape sequence: {last!r}"
    return ""


def _run(folder: Path, command: list[str]) -> _Done:
    """Run a command in a copy of this process, which has imported everything."""
    log = folder / "stderr.txt"
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on, of threads, such as those of pytest-xdist, which wait
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(_SECONDS)
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 2)
            os.dup2(os.open(folder / "stdout.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            os.chdir(folder)
            sys.argv = ["guard", *command]
            warnings.simplefilter("default")
            os._exit(_exit_code())
        finally:
            os._exit(99)  # whatever was raised, this process must not go on as its parent
    _, status = os.waitpid(child, 0)
    text = log.read_text(errors="replace") if log.exists() else ""
    if os.WIFSIGNALED(status):
        killed = os.WTERMSIG(status)
        return _Done(None if killed == signal.SIGALRM else -killed, text)
    return _Done(os.waitstatus_to_exitcode(status), text)


def _exit_code() -> int:
    try:
        main()
        code: object = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001  (shown as Python shows it)
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    sys.stdout.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


@functools.cache
def _good_files() -> Path:
    """Write one good file of each kind, and two benchmarks, into a folder that lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="guard-fuzz-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    made = torch.Generator().manual_seed(0)
    images, labels = torch.rand(20, 1, 8, 8, generator=made), torch.arange(20) % 10
    torch.save({"images": images, "labels": labels, "mean": [0.3], "std": [0.4]}, folder / "distilled.pt")
    np.savez(folder / "distilled.npz", images=images[:, 0].numpy(), labels=labels.numpy())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_network("MLP", channels=1, num_classes=10, im_size=(8, 8)).eval()
        right = network(images).argmax(dim=1)
    np.savez(folder / "images.npz", images=images[:, 0].numpy(), labels=torch.where(labels < 2, right, labels).numpy())
    torch.save({"data": [[images, labels]], "accs_all_exps": {"MLP": [0.1]}}, folder / "res_DC_digits_MLP_1ipc.pt")
    (folder / _MTT).parent.mkdir(parents=True)
    torch.save(images, folder / _MTT)
    torch.save(labels, folder / _MTT.replace("images", "labels"))
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, folder / "network.pth")
    ledger = {"schema": 1, "adapter": "dc", "script": "main.py", "outcome": "complete"}
    ledger |= {"loss_calls": {"seen": 3, "guarded": 3}, "penalty": {"name": "curvature", "h": 0.5}}
    (folder / "ledger.json").write_text(json.dumps(ledger))
    for name in ("a", "b"):
        command = f"{_NETWORK} --out {name}"
        done = _run(folder, command.split())
        if done.code != 0:
            raise RuntimeError(f"the fuzz's own files cannot be read:\n{done.stderr}")
    return folder
