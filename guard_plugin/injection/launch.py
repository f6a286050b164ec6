"""Running a host's script in this process, as ``python script`` would, under guard."""

from __future__ import annotations

import builtins
import importlib.machinery
import sys
import threading
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.foreign_text import printable
from guard_plugin.hosts.seams import Definition
from guard_plugin.injection.attach import Attachment
from guard_plugin.injection.ledger import Ledger
from guard_plugin.injection.ledger_file import LedgerFile
from guard_plugin.ranks import is_main_process

__all__ = ["find_script", "run_plain", "run_script"]


def run_script(
    adapter: str,
    script: Path,
    argv: Sequence[str],
    options: Mapping[str, Any],
    *,
    ledger_file: Path | None,
    repair: bool = False,
    teacher: Path | None = None,
) -> int:
    """Run a host's script under guard, report the ledger, and return the exit code.

    The script gets ``argv``, its name as the user gave it and its arguments, as ``sys.argv``. Its own exit code is
    returned if it failed or ended early (``--help``), else 0. GuardError is raised if it could not be run, or a loss
    call that had to be guarded was not.
    """
    script = script.absolute()
    file = LedgerFile(ledger_file, script) if ledger_file is not None and is_main_process() else None
    # Python, too, looks up a script's imports beside the file that a link leads to.
    attachment = Attachment(adapter, script.resolve(), options, arguments=argv[1:], repair=repair, teacher=teacher)
    ended_early, problem = False, None
    try:
        if file is not None:
            file.begin(attachment.ledger)
    except UnusableInput:
        attachment.detach("failed")
        raise
    try:
        folders = [script.resolve().parent, *attachment.profile.import_roots(script)]
        _refuse_shadowed_modules(folders)
        _become_python(script, argv, folders)
        _refuse_other_packages(attachment.definitions)
        code, ended_early = _execute(script, attachment.repairs.source(script))
        if attachment.is_copy:
            return code
        _join_threads()
        ended_early = ended_early and attachment.ledger.seen == 0
        if not ended_early:
            problem = attachment.conclude(succeeded=code == 0)
    finally:
        if not attachment.is_copy:
            attachment.detach("ended early" if ended_early else "failed")
            unwritten = _report(attachment.ledger, file, quiet=ended_early)
    if problem is not None:
        raise problem
    return code or (unwritten.exit_code if unwritten is not None else 0)


def run_plain(script: Path, argv: Sequence[str], *, stop: type[BaseException]) -> int:
    """Run a script as ``python script`` would, and return its exit code; an error ``stop`` is raised, not shown."""
    folders = [script.resolve().parent]
    _refuse_shadowed_modules(folders)
    _become_python(script, argv, folders)
    code, _ = _execute(script, script.read_bytes(), stop=stop)
    _join_threads()
    return code


def _report(ledger: Ledger, file: LedgerFile | None, *, quiet: bool) -> UnusableInput | None:
    """Print and write a ledger; return the error where it cannot be written, which is printed too."""
    if is_main_process() and not quiet:
        print(printable(f"guard: {ledger.summary()}"), file=sys.stderr)
    try:
        if file is not None:
            file.complete(ledger)
    except UnusableInput as error:
        print(printable(f"guard: error: {error}"), file=sys.stderr)
        return error
    return None


def _join_threads() -> None:
    """Wait for the script's threads, as Python does before it ends: it first lets those of idle executors end."""
    for end_executors in reversed(getattr(threading, "_threading_atexits", ())):
        end_executors()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def find_script(script: str, folder: Path | None) -> Path:
    """Find the one script named on the command line, as seen from here or from the folder that it shall run in."""
    places = [Path.cwd(), *([folder] if folder else [])]
    found = {(place / script).resolve(): place / script for place in places if (place / script).is_file()}
    if len(found) != 1:
        looked = " and ".join(str((place / script).absolute()) for place in places)
        raise UnusableInput(f"expected one script {script}, found {len(found)}: looked at {looked}")
    return next(iter(found.values()))


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


def _become_python(script: Path, argv: Sequence[str], folders: Sequence[Path]) -> None:
    """Give the process what ``python script arguments`` would have: argv, the import path and ``__main__``."""
    sys.argv = list(argv)
    own, *roots = (str(folder) for folder in folders)
    if not getattr(sys.flags, "safe_path", False):  # python -P gives a script no folder of its own
        sys.path[0:1] = [own]
    sys.path += roots
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __file__=str(script),
        __builtins__=builtins,
        __cached__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", str(script)),
    )
    sys.modules["__main__"] = main


def _execute(script: Path, source: bytes | str, *, stop: type[BaseException] = GuardError) -> tuple[int, bool]:
    """Run the script's source as ``__main__``; return its exit code, and whether its argument parser ended it."""
    namespace = sys.modules["__main__"].__dict__
    try:
        exec(compile(source, str(script), "exec", dont_inherit=True), namespace)
    except SystemExit as stop:
        # --help ends in argparse; a sys.exit(0) of the script's own does not.
        last, _ = list(traceback.walk_tb(stop.__traceback__))[-1]
        by_parser = Path(last.f_code.co_filename).name == "argparse.py"
        return _exit_code(stop), by_parser
    except (GuardError, stop):
        raise
    except BaseException as error:  # noqa: BLE001 - the script's own, shown as Python shows it
        trace = error.__traceback__
        ended_by = error.with_traceback(trace.tb_next if trace else None)
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
