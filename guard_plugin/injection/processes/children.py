"""Child processes: their loss calls are counted there, and added to the ledger of the process that started them.

A forked child has the parent's hooks. One that is started with "spawn" or "forkserver" begins without them: what it is
to run is given to it together with what it needs to guard it. Each child that makes a loss call leaves a report.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import multiprocessing
import multiprocessing.util
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from guard_plugin.errors import NothingGuarded
from guard_plugin.files import atomic_file
from guard_plugin.foreign_text import tell
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.patching import patch
from guard_plugin.injection.processes.started_programs import watch_started_programs

__all__ = ["Children", "Recipe", "makes_no_loss_call"]


@dataclass(frozen=True)
class Recipe:
    """What a child that begins anew needs to guard itself; ``reports`` is where it leaves its report."""

    adapter: str
    script: Path
    folder: Path | None
    options: Mapping[str, Any]
    arguments: tuple[str, ...]
    reports: str


class Children:
    """Watches the start of child processes, from creation until :meth:`remove`.

    Args:
        ledger: The ledger of this process.
        recipe: Makes the recipe for a child, given the folder of reports.
        failure: Says what has failed in this process, or returns an empty text.
        written: The files that this process wrote for another script.
        reports: The folder of reports, if this process is a child itself.
    """

    def __init__(
        self,
        ledger: Ledger,
        recipe: Callable[[str], Recipe],
        failure: Callable[[], str],
        written: Callable[[], list[Path]],
        reports: str | None = None,
    ) -> None:
        self._ledger, self._failure, self._written = ledger, failure, written
        self._is_root = reports is None
        self._folder = Path(reports or tempfile.mkdtemp(prefix="guard-"))
        self._recipe = recipe(str(self._folder))
        self._reported = 0
        self._between_tasks = False
        self._undo = contextlib.ExitStack()
        patch(self._undo, BaseProcess, "start", self._start)
        watch_started_programs(self._undo, self._note_program)

    def remove(self) -> None:
        """Watch no longer; safe to call twice."""
        self._undo.close()
        if self._is_root and os.getpid() == self._ledger.process:
            shutil.rmtree(self._folder, ignore_errors=True)

    def enter(self) -> None:
        """Begin to count for this process, if it was forked from the one that the ledger counts for."""
        if os.getpid() == self._ledger.process:
            if self._between_tasks:
                self.begin_report()
            return
        self._ledger.begin_again()
        self.begin_report()
        # Whichever comes: multiprocessing ends its children without the functions at exit.
        multiprocessing.util.Finalize(None, self.report, exitpriority=100)
        atexit.register(self.report)

    def begin_report(self) -> None:
        """Say that this process counts, so that one that is killed is missed."""
        self._between_tasks = False
        self._write({"outcome": "running"})

    def report(self) -> None:
        """Leave what this process counted."""
        if self._reported != os.getpid() and os.getpid() == self._ledger.process:
            self._reported = os.getpid()
            self._report()

    def report_task(self) -> None:
        """Leave what this worker of a pool has counted when it has done a task: pools terminate their workers."""
        if os.getpid() == self._ledger.process and not self._between_tasks:
            self._report()
            self._between_tasks = True

    def _report(self) -> None:
        written = [os.fspath(file) for file in self._written()]
        self._write({"outcome": "ended", "failure": self._failure(), "written": written, **self._ledger.counts()})

    def collect(self) -> tuple[NothingGuarded | None, list[Path]]:
        """Add the children's counts to the ledger; return what is wrong with one of them, and the files they wrote."""
        problem, written = None, []
        for file in sorted(self._folder.glob("*.json")):
            report = json.loads(file.read_text(encoding="utf-8"))
            file.unlink()
            if report["outcome"] == "running":
                problem = NothingGuarded(
                    f"expected each child process to end and to report what it guarded, found that process {file.stem} "
                    f"was killed, or goes on: what it wrote is not a GUARD result; wait for it with join()"
                )
                continue
            self._ledger.add(report)
            written += [Path(one) for one in report["written"]]
            if report["failure"]:
                problem = NothingGuarded(f"in the child process {file.stem}: {report['failure']}")
        return problem, written

    def _write(self, content: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError), atomic_file(self._folder / f"{os.getpid()}.json") as file:
            file.write(json.dumps(content).encode())

    def _start(self, plain: Callable[..., Any], process: Any) -> None:
        method = getattr(process, "_start_method", None) or multiprocessing.get_start_method()
        target = getattr(process, "_target", None)
        if method != "fork" and not self._ledger.unguarded and not makes_no_loss_call(target):
            if target is None or type(process).run is not BaseProcess.run:
                raise NothingGuarded(
                    f"expected a child process that can be guarded, found {type(process).__name__}, started with "
                    f"{method!r}, whose run() is its own: what it trains would not be guarded; start it with 'fork' "
                    f"(multiprocessing.set_start_method), or give it a target"
                )
            process._target = _Guarded(target, self._recipe)
        elif target is not None and _is_worker(target):
            process._target = functools.partial(_work, self.report_task, target)
        plain(process)

    def _note_program(self, command: str) -> None:
        """Say that a Python program was started, in which nothing is guarded."""
        if not self._ledger.unguarded and command not in self._ledger.programs:
            self._ledger.programs.append(command)
            tell(f"warning: {command!r} is a program of its own, and is not guarded")


def _is_worker(target: Any) -> bool:
    """Tell what a pool's process runs: of the standard library, or of torch."""
    return str(getattr(target, "__module__", "")).endswith("multiprocessing.pool")


def _work(report: Callable[[], None], worker: Callable[..., Any], inqueue: Any, outqueue: Any, *others: Any) -> Any:
    """Work as a worker of a pool does, and report before each result is returned."""
    put = outqueue.put

    def reported_put(result: Any) -> None:
        report()
        put(result)

    outqueue.put = reported_put
    return worker(inqueue, outqueue, *others)


@dataclass(frozen=True)
class _Guarded:
    """What a child runs in place of its target."""

    target: Callable[..., Any]
    recipe: Recipe

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from guard_plugin.injection.attachment import Attachment  # which watches children itself

        recipe = self.recipe
        options = dict(recipe.options)
        attachment = Attachment(
            recipe.adapter,
            recipe.script,
            options,
            folder=recipe.folder,
            arguments=recipe.arguments,
            reports=recipe.reports,
        )
        with attachment.as_child() as report_task:
            if _is_worker(self.target):
                return _work(report_task, self.target, *args, **kwargs)
            return self.target(*args, **kwargs)


def makes_no_loss_call(target: Any) -> bool:
    """Tell the helpers of torch and the standard library, such as DataLoader workers, from what a host runs."""
    module = str(getattr(target, "__module__", ""))
    return module.startswith(("torch.utils.data", "multiprocessing.managers", "multiprocessing.resource_"))
