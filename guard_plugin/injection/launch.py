"""Running a host's program in this process, as Python itself would, under guard."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.foreign_text import tell
from guard_plugin.hosts.seams import Definition
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.account.ledger_file import LedgerFile
from guard_plugin.injection.attachment import Attachment
from guard_plugin.injection.processes.program import Program
from guard_plugin.ranks import is_main_process

__all__ = ["run_guarded", "run_plain"]


def run_guarded(
    adapter: str,
    program: Program,
    arguments: Sequence[str],
    options: Mapping[str, Any],
    *,
    ledger_file: Path | None,
    repair: bool = False,
    teacher: Path | None = None,
) -> int:
    """Run a host's program under guard, report the ledger, and return the exit code.

    Its own exit code is returned if it failed or ended early (``--help``), else 0. GuardError is raised if it could not
    be run, or a loss call that had to be guarded was not.
    """
    file = LedgerFile(ledger_file, program.file) if ledger_file is not None and is_main_process() else None
    attachment = Attachment(
        adapter,
        program.file.resolve(),
        options,
        folder=program.folder,
        arguments=arguments,
        repair=repair,
        teacher=teacher,
    )
    ended_early, problem = False, None
    try:
        if file is not None:
            file.begin(attachment.ledger)
    except UnusableInput as error:
        attachment.end("failed", error)
        raise
    try:
        roots = [root for root in attachment.profile.import_roots(program.file) if root != program.folder]
        _refuse_shadowed_modules([program.folder, *roots])
        program.become(arguments, roots)
        _refuse_other_packages(attachment.definitions)
        code, ended_early = _execute(program, attachment.repairs.source(program.file))
        if attachment.is_copy:
            return code
        _join_threads()
        ended_early = ended_early and attachment.ledger.seen == 0
        if not ended_early:
            problem = attachment.conclude(succeeded=code == 0)
    except GuardError as error:
        problem = error
    finally:
        if not attachment.is_copy:
            problem = attachment.end("ended early" if ended_early else "failed", problem)
            unwritten = _report(attachment.ledger, file, quiet=ended_early)
    if problem is not None:
        raise problem
    return code or (unwritten.exit_code if unwritten is not None else 0)


def run_plain(program: Program, arguments: Sequence[str], *, stop: type[BaseException]) -> int:
    """Run a program as Python would, and return its exit code; an error ``stop`` is raised, not shown."""
    _refuse_shadowed_modules([program.folder])
    program.become(arguments)
    code, _ = _execute(program, program.file.read_bytes(), stop=stop)
    _join_threads()
    return code


def _report(ledger: Ledger, file: LedgerFile | None, *, quiet: bool) -> UnusableInput | None:
    """Print and write a ledger; return the error where it cannot be written, which is printed too."""
    if is_main_process() and not quiet:
        tell(ledger.summary())
    try:
        if file is not None:
            file.complete(ledger)
    except UnusableInput as error:
        tell(f"error: {error}")
        return error
    return None


def _join_threads() -> None:
    """Wait for the script's threads, as Python does before it ends: it first lets those of idle executors end."""
    for end_executors in reversed(getattr(threading, "_threading_atexits", ())):
        end_executors()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _refuse_shadowed_modules(folders: Sequence[Path]) -> None:
    """Refuse a process in which a module of the host's name was imported from elsewhere: the script would get that."""
    for file in [file for folder in folders for file in folder.glob("*.py")]:
        loaded = sys.modules.get(file.stem)
        origin = getattr(loaded, "__file__", None)
        if origin is not None and Path(origin).resolve() != file.resolve() and file.stem != "__main__":
            raise UnusableInput(
                f"the host has a module {file.stem} ({file}), but {origin} was imported under this name before: a "
                f"plugin must not import top-level modules of such names; one host per process"
            )


def _refuse_other_packages(definitions: Sequence[Definition]) -> None:
    """Refuse an import path on which a host's package without an ``__init__.py`` loses to one installed elsewhere."""
    for file, package in {(d.file, d.seam.module.partition(".")[0]) for d in definitions}:
        spec = importlib.machinery.PathFinder.find_spec(package) if file.parent.name == package else None
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent != file.parent:
            raise UnusableInput(
                f"the host's package {package} ({file.parent}) has no __init__.py, so that Python would import "
                f"{spec.origin} in its place: uninstall that, or take it off PYTHONPATH"
            )


def _execute(program: Program, source: bytes | str, *, stop: type[BaseException] = GuardError) -> tuple[int, bool]:
    """Run the program's source; return its exit code, and whether its argument parser ended it."""
    try:
        program.execute(source)
    except SystemExit as ended:
        # --help ends in argparse; a sys.exit(0) of the script's own does not.
        last, _ = list(traceback.walk_tb(ended.__traceback__))[-1]
        by_parser = Path(last.f_code.co_filename).name == "argparse.py"
        return _exit_code(ended), by_parser
    except (GuardError, stop):
        raise
    except BaseException as error:  # noqa: BLE001 - the script's own, shown as Python shows it
        trace = error.__traceback__
        within = trace.tb_next if trace else None  # of execute, too, which Python does not show
        ended_by = error.with_traceback(within.tb_next if within else None)
    else:
        return 0, False
    return _show(ended_by), False


def _show(error: BaseException) -> int:
    """Show the error that ended the script, by its own ``sys.excepthook`` if it has one; return the exit code."""
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except SystemExit as stop:
        return _exit_code(stop)
    except BaseException as failure:  # noqa: BLE001 - the hook's own
        print("Error in sys.excepthook:", file=sys.stderr)
        within = failure.__traceback__.tb_next if failure.__traceback__ else None
        traceback.print_exception(type(failure), failure, within)
        print("\nOriginal exception was:", file=sys.stderr)
        traceback.print_exception(type(error), error, error.__traceback__)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF  # what the operating system keeps of it
    print(stop.code, file=sys.stderr)
    return 1
