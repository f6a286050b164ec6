"""Commands that start a Python program are told from others, however a shell is asked."""

from pathlib import Path

import pytest

from guard_plugin.injection.processes.python_programs import python_program


@pytest.mark.parametrize(
    "command",
    [
        "python x.py",
        b"python3.11 x.py",
        "/opt/bin/python x.py > log 2>&1 &",
        "CUDA_VISIBLE_DEVICES=0 python x.py",
        "A='b c' B=2 python x.py",
        "cd . && python x.py",
        "cd .;python x.py",
        "if true; then\n  python x.py\nfi",
        "for i in 1 2; do python x.py $i; done",
        "(cd .; python x.py)",
        "yes | python x.py",
        "python 'x.py",
        "nohup python x.py &",
        "nice -n 10 ./x.py",
        "timeout 10m python x.py",
        "env -u A python x.py",
        "conda run -n torch python x.py",
        "uv run x.py",
        "bash -lc 'cd . && python x.py'",
        "accelerate launch x.py",
        "deepspeed x.py",
        "./x.py --epochs 3",
        Path("x.py"),
        ["/opt/my python/bin/python", "x.py"],
        ("torchrun", "--nproc-per-node", 1, Path("x.py")),
        ["./x.py"],
        ["env", "A=1", b"python", "x.py"],
        ["nohup", "bash", "-euo", "pipefail", "-c", "python x.py"],
    ],
    ids=str,
)
def test_what_starts_a_python_program_is_named_by_its_command(command):
    words = command if isinstance(command, (list, tuple)) else [command]
    expected = " ".join(" ".join(w.decode() if isinstance(w, bytes) else str(w) for w in words).split())
    assert python_program(command) == expected


@pytest.mark.parametrize(
    "command",
    [
        "ls x.py",
        "cat x.py | grep python",
        "echo 'a && python x.py'",
        "git commit -m python",
        "gcc -c x.py -o python",
        "nvidia-smi > python.log",
        "which python",
        "pip install python-dateutil",
        "sudo apt install python3",
        "timeout 5 cp a.py b.py",
        "bash run.sh",
        "for f in python; do ls $f; done",
        ["git", "add", "x.py"],
        ["bash", "-c"],
        ["bash", "-c", "ls x.py"],
        [],
        "",
        None,
    ],
    ids=str,
)
def test_what_only_mentions_one_is_not(command):
    assert python_program(command) == ""


def test_of_a_shell_the_text_that_it_is_given_is_the_command():
    assert python_program(["/bin/sh", "-c", "A=1  python x.py"]) == python_program("A=1 python x.py")
