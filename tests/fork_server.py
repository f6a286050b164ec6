"""Start Python programs by forking from a process that has imported torch, which takes seconds in a process of its own.

``ForkServer.run(["main.py", "--ipc", "1"], cwd=..., environment=...)`` returns what ``subprocess.run`` would return for
``[sys.executable, "main.py", "--ipc", "1"]``, and takes ``-m module`` and ``-c code`` as well. Each program runs in a
process of its own, which ends as interpreters end: its exit code, its traceback, its atexit functions and its threads
are those of a real one (tests/e2e/test_fork_server.py compares the two side by side). Five things differ: the modules
that are imported below are there already, and gc.get_objects() does not list their contents; str hashes have one seed
per server; what is read from the environment when the interpreter starts or a C library is loaded (OMP_NUM_THREADS,
MALLOC_..., sitecustomize) is fixed, so that ``run`` refuses other values; C++ destructors of static objects do not run.

This file is also the server's program. It imports nothing of the project, so that a program imports it from where its
own PYTHONPATH leads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import socket
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import BuiltinImporter, SourceFileLoader
from pathlib import Path
from typing import Any

# sklearn.datasets and torch._dynamo, which torch's optimizers import, take as long as torch.
IMPORTED_BEFORE_THE_FORK = ("torch", "numpy", "torchvision", "sklearn.datasets", "torch._dynamo", "PIL.Image")
_READ_AT_THE_START = (
    *("PYTHON", "LC_", "LANG", "LD_", "GLIBC_", "MALLOC_"),
    *("OMP_", "MKL_", "KMP_", "OPENBLAS_", "TORCH_"),
)
# The first two are taken in by hand below; sklearn sets the other two when it is imported.
_MAY_DIFFER = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
_STREAMS = 3


def process_environment() -> dict[str, str]:
    """Return the environment for a program of the tests: one thread, and no bytecode written beside a host."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class ForkServer:
    """A process that has imported torch and forks on demand. A context manager: the server ends with the block."""

    def __init__(self) -> None:
        self._environment = process_environment()
        self._environment.pop("PYTHONPATH", None)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=self._environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._process.wait()

    def run(
        self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python command`` to its end; return its exit code, stdout and stderr.

        Raises:
            ValueError: If the environment holds what a running process can no longer take in.
        """
        self._check(environment)
        request = {"command": list(command), "cwd": str(cwd), "environment": dict(environment)}
        outputs = [os.pipe() for _ in ("stdout", "stderr")]
        with open(os.devnull, "rb") as nothing, ThreadPoolExecutor(len(outputs)) as pool:
            socket.send_fds(self._socket, [b"!"], [nothing.fileno(), *(write for _, write in outputs)])
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            for _, write in outputs:
                os.close(write)
            texts = [pool.submit(_read_all, read) for read, _ in outputs]
            code = json.loads(_read_line(self._socket))
            stdout, stderr = (text.result() for text in texts)
        return subprocess.CompletedProcess([sys.executable, *command], code, stdout, stderr)

    def _check(self, environment: Mapping[str, str]) -> None:
        for name in environment.keys() | self._environment.keys():
            fixed = name.startswith(_READ_AT_THE_START) and name not in _MAY_DIFFER
            if fixed and environment.get(name) != self._environment.get(name):
                raise ValueError(
                    f"expected {name}={self._environment.get(name)}, found {environment.get(name)}: a forked process "
                    f"cannot change it; start a real process"
                )
        for folder in filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)):
            if (file := Path(folder, "sitecustomize.py")).exists():
                raise ValueError(f"{file} is imported when an interpreter starts: start a real process")


def _read_all(file: int) -> str:
    with open(file, encoding=sys.stdout.encoding) as stream:
        return stream.read()


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(2**16)
        if not part:
            raise EOFError("the fork server has ended: its stderr says why")
        line += part
    return line


def _wait_for_a_fork(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Return the request in the new process, and None in the server at its end."""
    while True:
        signal, files, _, _ = socket.recv_fds(connection, 1, _STREAMS)
        if not signal:
            return None
        request: dict[str, Any] = json.loads(_read_line(connection))
        process = os.fork()
        if process == 0:
            for stream, file in enumerate(files):
                os.dup2(file, stream)
        for file in files:
            os.close(file)
        if process == 0:
            connection.close()
            return request
        _, status = os.waitpid(process, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become_interpreter(request: dict[str, Any]) -> tuple[str, str]:
    """Give the process what the interpreter makes of the command; return what to run: ("-m", module), for example."""
    import numpy

    numpy.random.seed()  # from the operating system, as at its import; Python's own generator does so itself
    sys.stdin, sys.stdout, sys.stderr = map(_reopened, (sys.__stdin__, sys.__stdout__, sys.__stderr__))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    ctypes.CDLL(None).on_exit(ctypes.CDLL(None)._exit, None)  # 0.2 s less than destroying what torch's libraries hold
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    kind, *arguments = request["command"]
    if kind not in ("-m", "-c"):
        kind, arguments = "script", [kind, *arguments]
    what = arguments[0]
    sys.orig_argv = [sys.executable, *request["command"]]  # novm
    sys.argv = [*([kind] if kind != "script" else [what]), *arguments[1:]]
    first = {"-m": os.getcwd(), "-c": "", "script": str(Path(what).resolve().parent)}[kind]
    given = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [first, *dict.fromkeys([*given, *sys.path[1:]])]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()
    main = types.ModuleType("__main__")
    main.__dict__.update(__annotations__={}, __builtins__=__builtins__, __loader__=BuiltinImporter)
    if kind == "script":
        what = os.path.abspath(what)
        main.__dict__.update(__file__=what, __cached__=None, __loader__=SourceFileLoader("__main__", what))
    sys.modules["__main__"] = main
    return kind, what


def _reopened(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """A stream of the same file and kind, which gc.get_objects() lists as it lists those of a new interpreter."""
    unbuffered = isinstance(stream.buffer, io.RawIOBase)
    file = os.fdopen(stream.fileno(), stream.buffer.mode, buffering=0 if unbuffered else -1, closefd=False)
    (file if unbuffered else file.raw).name = stream.name
    made = io.TextIOWrapper(
        file,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    made.mode = stream.mode
    return made


def _hide_this_file() -> None:
    """Let the interpreter, which shows an error that ends a program, show it without this file's frames."""
    show = sys.excepthook

    def show_the_programs(kind: type[BaseException], value: BaseException, trace: types.TracebackType | None) -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        show(kind, value.with_traceback(trace), trace)

    sys.excepthook = show_the_programs


def _serve() -> dict[str, Any] | None:
    for name in IMPORTED_BEFORE_THE_FORK:
        with contextlib.suppress(ModuleNotFoundError):  # torch 1.11 has no torch._dynamo
            importlib.import_module(name)
    if (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise RuntimeError(f"expected a process of one thread, which can be forked, found {threads}")
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page that holds an object
    return _wait_for_a_fork(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__" and (_request := _serve()) is not None:
    # Here, not in a function: from here the interpreter goes to its ordinary end.
    _kind, _what = _become_interpreter(_request)
    try:
        if _kind == "-m":
            runpy._run_module_as_main(_what)
        elif _kind == "-c":
            exec(compile(_what, "<string>", "exec", dont_inherit=True), sys.modules["__main__"].__dict__)
        else:
            exec(compile(Path(_what).read_bytes(), _what, "exec", dont_inherit=True), sys.modules["__main__"].__dict__)
    except SystemExit:
        raise
    except BaseException:
        _hide_this_file()
        raise
