"""What guards a process: all hooks, from a plan to the verified ledger."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy
import torch

from guard_plugin import __version__
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.foreign_text import tell
from guard_plugin.hosts.faults import Repairs
from guard_plugin.hosts.profile import ExpectedCount
from guard_plugin.hosts.work_tree import commit_of, is_modified
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.account.provenance import Provenance
from guard_plugin.injection.calls.compiled_functions import watch_compiled_functions
from guard_plugin.injection.calls.sources import Sources
from guard_plugin.injection.calls.stack import StackReader
from guard_plugin.injection.calls.tap import Tap
from guard_plugin.injection.guard import Guard
from guard_plugin.injection.patching import patch
from guard_plugin.injection.plan import Plan
from guard_plugin.injection.processes.children import Children, Recipe
from guard_plugin.injection.teacher import Teacher
from guard_plugin.ranks import is_main_process

__all__ = ["Attachment"]


class Attachment:
    """Guards this process, from creation until :meth:`detach`.

    As a context manager, it detaches at the end of the block and then checks that every due call was guarded.

    ``adapter``, ``script`` and ``options`` are those of :func:`guard_plugin.attach`, ``arguments`` the script's own,
    and ``folder`` the one that its imports are looked up in first. With ``repair``, known faults of the host are mended
    in memory; callers of torchvision get the checkpoint ``teacher`` in place of pretrained weights. A child process
    leaves its report in the folder ``reports``. Where anything does not fit, GuardError is raised and nothing has been
    changed.
    """

    _active: Attachment | None = None

    def __init__(
        self,
        adapter: str,
        script: Path,
        options: Mapping[str, Any],
        *,
        folder: Path | None = None,
        arguments: Sequence[str] = (),
        repair: bool = False,
        teacher: Path | None = None,
        reports: str | None = None,
    ) -> None:
        if Attachment._active is not None:
            raise UnusableInput("guarding is on already in this process: detach it first; one host per process")
        plan = Plan.make(adapter, script, folder, options, arguments)
        self._process = os.getpid()
        self._entered: Callable[[], None] = lambda: None
        self.profile = profile = plan.profile
        self.definitions = plan.definitions
        penalty, faults = plan.penalty.penalty, plan.faults
        self.ledger = _ledger_of(plan, adapter, repair=repair)
        self._hooks = plan.plugins.hook
        reader = StackReader(plan.host, self.definitions)
        self._guard = Guard(
            chosen=plan.penalty,
            reader=reader,
            expected=plan.expected if isinstance(plan.expected, ExpectedCount) else None,
            paths=plan.paths,
            ledger=self.ledger,
            real=profile.real,
            made_by=profile.made_by,
        )
        self._teacher = Teacher(teacher) if teacher is not None else None
        for fault in faults if is_main_process() and reports is None else []:
            mended = "mended in memory" if repair else "guard run --repair mends it in memory"
            tell(f"known fault of this host, {fault.describe()}; {mended}")
        with contextlib.ExitStack() as undo:  # what fails here leaves nothing behind
            self._hooks.run_started(ledger=self.ledger)
            undo.callback(self._tell_that_it_ended)
            self.repairs = Repairs(faults if repair else [])
            undo.callback(self.repairs.remove)
            self._provenance = Provenance(profile, arguments, self.ledger)
            undo.callback(self._provenance.remove)
            if self._teacher is not None:
                self._teacher.install(undo)
                self._provenance.take_over(self._teacher.file)
            tap = Tap(
                self._guard,
                begins=self._guard.begins,
                share_forward=self._guard.share_forward if penalty.strength else None,
                trained_on=self._guard.trained_on,
            )
            undo.callback(tap.remove)
            recipe = functools.partial(Recipe, adapter, script, folder, dict(options), tuple(arguments))
            self._children = Children(
                self.ledger, recipe, lambda: str(self._guard.last_failure() or ""), self._provenance.written, reports
            )
            undo.callback(self._children.remove)
            self._guard.enters = self._children.enter
            if profile.made_by or any("source" in one.argnames for one in self._hooks.is_real_data.get_hookimpls()):
                sources = Sources(reader.host_frame)
                undo.callback(sources.remove)
                self._guard.source_of = lambda batch: sources.of(batch, sys._getframe(1))[0]
            self._guard.origins = tap.origins
            if is_main_process() and reports is None:
                self._guard.tells = tell
            watch_compiled_functions(undo, self._guard.compiled_loss, tap.origins.paused)
            self._undo = undo.pop_all()
        Attachment._active = self

    def conclude_at_exit(self) -> None:
        """Conclude when the process ends, unless that was done before, and end it with the error's exit code."""
        codes: list[object] = []

        def exit_noted(_: object, code: object = None, /) -> NoReturn:
            codes.append(code)  # Python does not tell it to functions at exit
            raise SystemExit(code)

        patch(self._undo, sys, "exit", exit_noted)
        atexit.register(self._at_exit, codes)
        self._undo.callback(atexit.unregister, self._at_exit)

    def require_block(self) -> None:
        """Refuse a loss call, or a network's, that is made before the block of a ``with`` statement was entered."""
        enters = self._guard.enters

        def refuse() -> None:
            self.detach("failed")
            raise UnusableInput(
                "expected the training to be in a block, `with guard_plugin.attach(...): ...`, at whose end it is "
                "checked what was guarded; found an interactive session, at whose end nobody would see it"
            )

        self._guard.enters = refuse
        self._entered = lambda: setattr(self._guard, "enters", enters)

    def detach(self, outcome: str = "detached") -> None:
        """Remove every hook and restore every patched name; safe to call twice.

        Raises:
            PluginError: If a plugin's hook ``run_ended`` failed; the outcome stays, and everything was removed.
        """
        if Attachment._active is not self:
            return
        Attachment._active = None
        if self._teacher is not None:
            self.ledger.teacher = self._teacher.to_json()
        self.ledger.end(outcome)
        try:
            self._undo.close()
        finally:
            if is_main_process():
                self._provenance.mark()

    def end(self, outcome: str, problem: GuardError | None) -> GuardError | None:
        """Detach, and return the run's problem, with what a plugin's hook ``run_ended`` failed of after it, or that."""
        try:
            self.detach(outcome)
        except GuardError as failure:
            if problem is None:
                return failure
            problem.args = (f"{problem}; further, {failure}",)
        return problem

    def _tell_that_it_ended(self) -> None:
        if self.ledger.ended is None:
            self.ledger.end("failed")
        self._hooks.run_ended(ledger=self.ledger)

    @property
    def is_copy(self) -> bool:
        """Whether this process was forked from the guarded one; the ledger does not count its loss calls."""
        return os.getpid() != self._process

    def conclude(self, *, succeeded: bool) -> GuardError | None:
        """Detach, and return the error if something that had to be guarded was not; None where all was.

        Errors are a loss call that could not be guarded (also where the host swallowed its error), no guarded call,
        another number of them than expected, a penalty that was not finite, and one that was always 0; of a script that
        did not end well, only the first is one. The ledger's outcome becomes "complete", "incomplete" or "failed", and
        stays so where a plugin's hook ``run_ended`` then fails: that is an error, too, or a line on stderr where the
        script failed.
        """
        of_children, written = self._children.collect()
        self._provenance.add(written)
        problem = of_children or self._guard.problem() if succeeded else self._guard.failure
        if problem is None and succeeded and self._teacher is not None:
            problem = self._teacher.problem()
        ended = self.end("failed" if not succeeded else "incomplete" if problem else "complete", problem)
        if ended is not None and problem is None and not succeeded:
            tell(f"error: {ended}")
            return None
        return ended

    @contextlib.contextmanager
    def as_child(self) -> Iterator[Callable[[], None]]:
        """Guard a child process, and leave its report; what is wrong with it is told by the process that started it.

        The block gets what a worker of a pool is to call when it has done a task.
        """
        self._children.begin_report()
        try:
            yield self._children.report_task
        finally:
            self._children.report()
            self._undo.pop_all()  # the process ends; the files it wrote are marked by its parent

    def __enter__(self) -> Attachment:
        self._entered()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        problem = self.conclude(succeeded=kind is None)
        if kind is None and problem is not None:
            raise problem

    def _at_exit(self, codes: Sequence[object]) -> None:
        if self.is_copy:
            return
        # A script that crashed or was ended by sys.exit(code) has its own exit code; --help makes no loss call.
        failed = getattr(sys, "last_value", None) is not None or any(code not in (None, 0) for code in codes[-1:])
        early = bool(codes) and self.ledger.seen == 0
        problem = self.conclude(succeeded=not (failed or early))
        if is_main_process():
            tell(self.ledger.summary())
        if failed or early or problem is None:
            return
        tell(f"error: {problem}")
        _end_process(problem.exit_code)


def _ledger_of(plan: Plan, adapter: str, *, repair: bool) -> Ledger:
    """Begin the ledger of a run."""
    return Ledger(
        adapter=adapter,
        script=plan.profile.script,
        penalty=plan.penalty.settings(),
        strength=plan.penalty.penalty.strength,
        unguarded=plan.unguarded,
        definitions=plan.definitions,
        versions={
            "guard_plugin": __version__,
            "adapter": plan.distribution,
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": sys.version.split()[0],
        },
        host=_described(plan.host),
        faults=[fault.to_json(repaired=repair) for fault in plan.faults],
        expected=plan.expected if isinstance(plan.expected, int) else None,
        paths=plan.paths.counts,
    )


def _described(host: Path) -> dict[str, Any]:
    commit = commit_of(host)
    return {"folder": str(host), "commit": commit, "modified": None if commit is None else is_modified(host)}


def _end_process(code: int) -> NoReturn:
    """End the process with an exit code while the interpreter is ending; nothing that was written is lost."""
    atexit._run_exitfuncs()
    for thing in gc.get_objects():
        # By its type: asked for its class, an object of another library may warn.
        if issubclass(type(thing), (io.TextIOWrapper, io.BufferedWriter)) and not thing.closed and thing.writable():
            thing.flush()
    os._exit(code)
