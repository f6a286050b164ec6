"""A forked program is what a real process is: the same script, both ways, side by side."""

import json
import re

import pytest

WHAT_IT_IS_GIVEN = """
given = sorted(globals())
import __main__, gc, json, os, pickle, sys, threading
class Local: pass
pickle.loads(pickle.dumps(Local()))
names = [__name__, __doc__, __package__, __spec__ and __spec__.name, globals().get("__file__"),
         getattr(__loader__, "__name__", type(__loader__).__name__)]
streams = [[s.name, s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.buffer.mode, s.mode,
            any(s is one for one in gc.get_objects())] for s in (sys.stdin, sys.stdout, sys.stderr)]
print(json.dumps({
    "given": given, "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "names": names, "cwd": os.getcwd(),
    "environment": {k: v for k, v in os.environ.items() if k not in ("PYTEST_CURRENT_TEST", "_")},
    "told to C": [os.getenv("ADDED"), os.popen("echo $ADDED $HOME").read()],
    "main": [__main__.__dict__ is globals(), sys.modules["__main__"] is __main__],
    "streams": streams, "stdin": sys.stdin.read(), "flags": [*sys.flags], "bytecode": sys.dont_write_bytecode,
    "threads": [one.name for one in threading.enumerate()], "files": sorted(os.listdir("/proc/self/fd"))[:3],
    "hooks": [sys.excepthook is sys.__excepthook__, sys.exit.__name__], "gc": [gc.isenabled(), gc.get_threshold()],
    "project": sorted(name for name in sys.modules if name.startswith(("guard", "tests", "utils", "common", "pytest"))),
}))
"""

ENDS = {
    "nothing": "",
    "sys.exit(0)": "sys.exit(0)",
    "sys.exit(7)": "sys.exit(7)",
    "sys.exit(300)": "sys.exit(300)",
    "a message": "sys.exit('no such data set')",
    "an error": "def f():\n    raise ValueError('broken')\nf()",
    "an error of an error": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('broken') from e",
    "an interrupt": "raise KeyboardInterrupt",
    "os._exit": "os._exit(5)",
    "a signal": "os.kill(os.getpid(), signal.SIGKILL)",
    "a syntax error": "def",
    "an error at exit": "atexit.register(lambda: 1 / 0)",
    "sys.exit at exit": "atexit.register(sys.exit, 4)",
    "a hook": "sys.excepthook = lambda *error: print('hooked', error[0].__name__, error[2].tb_lineno)\n1 / 0",
    "a thread": "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
    "an error in a thread": "threading.Thread(target=lambda: 1 / 0).start()",
    "a fork": "if os.fork() == 0:\n    sys.exit(3)\nprint(os.waitstatus_to_exitcode(os.wait()[1]))",
    "a child": "os.system('echo child; echo error >&2')",
}
END = """
import atexit, os, signal, sys, threading, time
pid = os.getpid()
at_exit = lambda *words: os.getpid() == pid and print(*words, repr(getattr(sys, "last_value", None)))
atexit.register(at_exit, "first registered")
atexit.register(at_exit, "second registered")
log = open("log.txt", "w")
log.write("kept")
class Last:
    def __del__(self):
        os.write(2, b"deleted\\n")
last = Last()
print("out")
print("err", file=sys.stderr)
"""


@pytest.fixture
def both(python, python_process, tmp_path):
    """Run a command both ways, each in a folder of its own of the same name; return what can be compared of the two."""

    def run(files, *command, **environment):
        outcomes = []
        for way, how in (("forked", python), ("real", python_process)):
            folder = tmp_path / "same"
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
            done = how(*command, cwd=folder, **environment)
            written = {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}
            outcomes.append((done.args, done.returncode, done.stdout, done.stderr, written))
            folder.rename(tmp_path / way)
        return outcomes

    return run


@pytest.mark.parametrize("kind", ["script", "module", "code"])
def test_a_program_is_given_the_same(both, tmp_path, environment, kind):
    del environment["HOME"]
    command = {"script": ["probe.py"], "module": ["-m", "probe"], "code": ["-c", WHAT_IT_IS_GIVEN]}[kind]
    paths = f"{tmp_path}/same:relative:{tmp_path}/nowhere:relative"
    forked, real = both({"probe.py": WHAT_IT_IS_GIVEN}, *command, "--help", "", "a b", ADDED="1", PYTHONPATH=paths)
    assert forked[1] == 0, forked[3]
    assert json.loads(forked[2]) == json.loads(real[2])
    assert forked == real


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_the_same(both, end):
    forked, real = both({"probe.py": END + ENDS[end]}, "probe.py")
    assert [*map(without_addresses, forked)] == [*map(without_addresses, real)]


def without_addresses(value):
    return re.sub(r"0x[0-9a-f]+|\(\S+ line 1\)|Thread-\d+", "...", value) if isinstance(value, str) else value


def test_output_of_any_length_arrives(python):
    done = python("-c", "import sys; print('é' * 10**6); print('e' * 10**6, file=sys.stderr)")
    assert (len(done.stdout), len(done.stderr)) == (10**6 + 1, 10**6 + 1)


def test_numbers_that_nothing_seeded_differ_from_process_to_process(python):
    draw = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (python("-c", draw).stdout.split() for _ in range(2))
    assert first[0] != second[0] and first[1] != second[1]


def test_what_a_running_process_cannot_take_in_is_refused(python, tmp_path):
    with pytest.raises(ValueError, match="expected OMP_NUM_THREADS=1, found 2"):
        python("-c", "", OMP_NUM_THREADS="2")
    (tmp_path / "sitecustomize.py").write_text("")
    with pytest.raises(ValueError, match=r"sitecustomize\.py is imported when an interpreter starts"):
        python("-c", "", PYTHONPATH=str(tmp_path))


RANKS = """
import sys
import torch.distributed as dist
dist.init_process_group("gloo")
if dist.get_rank() == 1 and "fail" in sys.argv:
    raise ValueError("rank 1 failed")
everyones = [None, None]
dist.all_gather_object(everyones, [dist.get_rank(), sys.argv, __name__])
sys.stdout.write(f"{everyones}\\n")  # at once, so that the ranks do not mix
"""


def test_two_ranks_meet_and_one_that_fails_ends_both(two_ranks, tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    done = two_ranks("ranks.py", "--option")
    everyones = [[rank, ["ranks.py", "--option"], "__main__"] for rank in (0, 1)]
    assert (done.returncode, done.stdout) == (0, f"{everyones}\n" * 2), done.stderr
    failed = two_ranks("ranks.py", "fail")
    assert failed.returncode == 1 and "ValueError: rank 1 failed" in failed.stderr and not failed.stdout
