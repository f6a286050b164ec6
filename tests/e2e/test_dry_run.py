"""``guard run --dry-run``: what a run would do, and nothing that it does."""

import json
import shlex

import pytest

from tests.conftest import BASELINES

ARGUMENTS = shlex.split("--dataset digits --ipc 1 --save_path out")


def test_it_says_what_is_guarded_how_and_what_it_must_reach_and_runs_nothing(guard, baseline, tmp_path):
    done = guard("run", "--dry-run", "--strength", "2", "--h", "0.5", "dc", baseline / "main.py", *ARGUMENTS)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert done.stdout.startswith("dc main.py: what a run would do; nothing is run")
    assert lines["settings"] == "penalty curvature, gradient form, strength 2, h 0.5"
    assert "guards under   main.main, main.py:" in done.stdout
    assert "but not under  utils.epoch, utils.py:" in done.stdout
    assert "must guard     args.num_exp * (args.Iteration + 1)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_recommended_settings_and_their_reference_are_said(guard, baseline):
    done = guard("run", "--dry-run", "dc", baseline / "main.py", *ARGUMENTS)
    assert " at 3x224x224, which follows the size of the images" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--h-ramp 5 --strength-ramp 3 --memory low", "images, strength_ramp 3, h_ramp 5, memory low"),
        ("--set path=reference", "images, path reference"),
        (
            "--penalty pgd_at --set eps=8/255 --set mean=0.5,0 --set std=0.2,1 --set eps_ramp=2",
            "penalty pgd_at, strength 1, eps 0.03137, eps_ramp 2, mean 0.5,0, std 0.2,1, rel_step_size 0.25, steps 7",
        ),
    ],
)
def test_every_setting_is_said(guard, baseline, options, words):
    done = guard("run", "--dry-run", *shlex.split(options), "dc", baseline / "main.py", *ARGUMENTS)
    (settings,) = (line for line in done.stdout.splitlines() if line.startswith("settings"))
    assert settings.endswith(words), done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nobody", "main.py"], "nobody"),
        (["dc", "other.py"], "expected one script other.py"),
        (["--strength=-1", "dc", "main.py"], "expected strength"),
        (["--teacher=missing.pt", "dc", "main.py"], "no such file"),
        (["auto", "--guard", "main:missing", "--strength=1", "--h=1", "main.py"], "expected a function missing"),
    ],
)
def test_what_a_run_would_refuse_is_refused(guard, baseline, tmp_path, options, words):
    done = guard("run", "--dry-run", *options, cwd=baseline)
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_the_markers_of_files_that_would_be_read_are_looked_at(guard, tmp_path):
    squeeze = BASELINES / "sre2l" / "squeeze.py"
    teacher = shlex.split("--dataset digits --model ConvNetBN16-32 --epochs 1 --n-train 64 --output-dir")
    assert guard("run", "sre2l", squeeze, *teacher, "teacher").returncode == 0
    recover = BASELINES / "sre2l" / "recover.py"
    file = tmp_path / "teacher" / "checkpoint.pth"
    done = guard("run", "--dry-run", "sre2l", recover, "--arch-path=teacher/checkpoint.pth")
    assert "guards         nothing: " in done.stdout
    assert "may read       teacher/checkpoint.pth, made under curvature" in done.stdout
    assert guard("run", "--strength=0", "sre2l", squeeze, *teacher, "plain").returncode == 0
    done = guard("run", "--dry-run", "--teacher", file, "sre2l", recover, "--arch-path", "plain")
    assert "may read       plain/checkpoint.pth, made under strength 0, a baseline; sre2l squeeze.py" in done.stdout
    assert f"teacher        {file}, made under curvature" in done.stdout


def test_auto_says_the_number_that_is_given(guard, baseline):
    options = ["--strength=1", "--h=1", "auto", "--guard=utils:epoch", "--expect=5"]
    done = guard("run", "--dry-run", *options, baseline / "main.py")
    assert (
        "must guard     5 loss calls, as given" in done.stdout
        and "guards under   utils.epoch, utils.py:" in done.stdout
    )
    assert json.dumps(done.stdout).isascii()
