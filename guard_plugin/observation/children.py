"""Child processes of an observed script: each observes itself, and leaves what it saw to be added."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from guard_plugin.files import atomic_file
from guard_plugin.injection.patching import patch
from guard_plugin.injection.processes.children import makes_no_loss_call
from guard_plugin.injection.processes.started_programs import watch_started_programs
from guard_plugin.observation.sites import Group, Observation

__all__ = ["Children"]


class Children:
    """Has the processes that are started observed, from creation until :meth:`remove`.

    ``script`` is the observed script, ``host`` the folder that its files are named from, and ``folder`` where reports
    are left, if this process is a child itself.
    """

    def __init__(self, script: Path, host: Path, observation: Observation, folder: str | None = None) -> None:
        self._script, self._host, self._observation, self._is_root = script, host, observation, folder is None
        self._folder = folder or tempfile.mkdtemp(prefix="guard-")
        self._undo = contextlib.ExitStack()
        patch(self._undo, BaseProcess, "start", self._start)
        watch_started_programs(self._undo, self._note_program)

    def remove(self) -> None:
        """Watch no longer."""
        self._undo.close()
        if self._is_root:
            shutil.rmtree(self._folder, ignore_errors=True)

    def collect(self) -> None:
        """Wait for the children, as Python does at its end, and add what they saw."""
        for process in multiprocessing.active_children():
            if not process.daemon:
                process.join()
        for file in sorted(Path(self._folder).glob("*.json")):
            report = json.loads(file.read_text(encoding="utf-8"))
            self._observation.children[report["child"]] -= 1
            for group in report["groups"]:
                group["stack"], group["shape"] = tuple(map(tuple, group["stack"])), tuple(group["shape"])
                self._observation.add(Group(**group))
            for command in report["programs"]:
                self._note_program(command)
        self._observation.children = +self._observation.children

    def _note_program(self, command: str) -> None:
        if command not in self._observation.programs:
            self._observation.programs.append(command)

    def _start(self, plain: Callable[[Any], None], process: Any) -> None:
        self._observe(process)
        plain(process)

    def _observe(self, process: Any) -> None:
        target = getattr(process, "_target", None)
        if makes_no_loss_call(target):
            return
        runs = type(process) if target is None else target
        name = f"{getattr(runs, '__module__', '?')}.{getattr(runs, '__name__', type(runs).__name__)}"
        self._observation.children[name] += 1
        if target is not None:
            process._target = _Observed(target, self._script, self._host, self._folder, name)


@dataclass(frozen=True)
class _Observed:
    """What a child runs in place of its target."""

    target: Callable[..., Any]
    script: Path
    host: Path
    folder: str
    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from guard_plugin.observation.run import observing  # which watches children itself

        # The report comes last: the end of observing judges the last step.
        with contextlib.ExitStack() as at_end, observing(self.script, self.host, self.folder) as observation:
            at_end.callback(self._report, observation)
            return self.target(*args, **kwargs)

    def _report(self, observation: Observation) -> None:
        with contextlib.suppress(OSError), atomic_file(Path(self.folder) / f"{os.getpid()}.json") as file:
            groups = [vars(group) for group in observation.groups]
            report = {"child": self.name, "groups": groups, "programs": observation.programs}
            file.write(json.dumps(report).encode())
