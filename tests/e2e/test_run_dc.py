"""``guard run dc`` on our own DC, which has the real host's shape."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from guard_plugin.versions import strict_zip
from tests.mutations import GUARDED, REFUSED_DURING
from tests.versions import load_own

ARGUMENTS = shlex.split(
    "--dataset digits --model ConvNetD1 --ipc 1 --num_exp 1 --num_eval 1 --epoch_eval_train 2 --Iteration 1 "
    "--outer_loop 3 --inner_loop 2 --batch_real 8 --save_path out"
)
GUARDED_CALLS = 1 * 2 * 3 * 10
SHORT = [*ARGUMENTS, *shlex.split("--model MLP --Iteration 0 --outer_loop 2 --num_eval 0")]
SETTINGS = ["--strength", "1", "--h", "0.5"]


def ledger_of(file: Path) -> dict:
    return json.loads(file.read_text())


def tensors(folder: Path) -> list[torch.Tensor]:
    (file,) = folder.glob("res_*.pt")
    return [t for pair in load_own(file)["data"] for t in pair]


@pytest.fixture
def fork(forks: Path) -> Path:
    return forks / "dc"


def test_exactly_the_loss_calls_on_real_data_are_guarded(guard, baseline, tmp_path):
    done = guard("run", *SETTINGS, "--ledger", "ledger.json", "dc", baseline / "main.py", *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    ledger = ledger_of(tmp_path / "ledger.json")
    calls = ledger["loss_calls"]
    assert (calls["guarded"], calls["expected"]) == (GUARDED_CALLS, GUARDED_CALLS)
    assert calls["seen"] == calls["guarded"] + sum(calls["skipped"].values())
    assert set(calls["skipped"]) == {
        "suspended: utils.epoch",
        "suspended: utils.evaluate_synset",
        "synthetic: input requires grad",
    }
    assert ledger["penalty"] == {
        **{"name": "curvature", "combination": "added", "form": "gradient", "h": 0.5, "strength": 1.0},
        **{"h_ramp": 0, "strength_ramp": 0, "batch_statistics": False},
    }
    assert ledger["penalty_value"]["mean"] > 0 and ledger["outcome"] == "complete"
    assert f"{GUARDED_CALLS} of {GUARDED_CALLS} expected guarded" in done.stderr


def test_strength_zero_is_the_plain_run_bit_for_bit_and_above_zero_is_not(guard, python_process, baseline, tmp_path):
    assert python_process(baseline / "main.py", *ARGUMENTS[:-1], "plain").returncode == 0
    for strength, folder in (("0", "zero"), ("5", "five")):
        options = ["--strength", strength, "--h", "0.5", "--ledger", f"{folder}.json"]
        done = guard("run", *options, "dc", baseline / "main.py", *ARGUMENTS[:-1], folder)
        assert done.returncode == 0, done.stderr
    expected = tensors(tmp_path / "plain")
    assert all(torch.equal(a, b) for a, b in strict_zip(tensors(tmp_path / "zero"), expected))
    assert not torch.equal(tensors(tmp_path / "five")[0], expected[0])
    zero = ledger_of(tmp_path / "zero.json")
    assert zero["loss_calls"]["guarded"] == GUARDED_CALLS and zero["penalty_value"]["mean"] is None


@pytest.mark.parametrize("arguments", [["--model", "ConvNetBN"], ["--method", "DSA", "--dsa_strategy", "flip_cutout"]])
@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_batch_norm_and_siamese_augmentation(guard, baseline, tmp_path, arguments, form):
    options = [*SETTINGS, "--form", form, "--ledger", "ledger.json"]
    done = guard("run", *options, "dc", baseline / "main.py", *SHORT, *arguments)
    assert done.returncode == 0, done.stderr
    ledger = ledger_of(tmp_path / "ledger.json")
    assert ledger["loss_calls"]["guarded"] == 20 and ledger["penalty_value"]["nonfinite"] == 0


@pytest.mark.parametrize("mutation", GUARDED)
def test_a_fork_with_another_loss_call_is_guarded_exactly(guard, fork, tmp_path, mutation):
    GUARDED[mutation](fork)
    done = guard("run", *SETTINGS, "--ledger", tmp_path / "ledger.json", "dc", fork / "main.py", *SHORT)
    assert done.returncode == 0, done.stderr
    assert ledger_of(tmp_path / "ledger.json")["loss_calls"]["guarded"] == 20


@pytest.mark.parametrize("mutation", REFUSED_DURING)
def test_a_fork_whose_loss_cannot_be_guarded_exactly_is_refused(guard, fork, mutation):
    mutate, code, words = REFUSED_DURING[mutation]
    mutate(fork)
    done = guard("run", *SETTINGS, "--strength", "0", "dc", fork / "main.py", *SHORT)
    assert done.returncode == code, done.stderr
    assert words.split("|")[0] in done.stderr or words.split("|")[-1] in done.stderr


def test_a_host_that_swallows_every_error_does_not_hide_a_failure(guard, fork):
    source = (fork / "main.py").read_text()
    source = source.replace(
        'if __name__ == "__main__":\n    main()',
        'if __name__ == "__main__":\n    try:\n        main()\n    except BaseException:\n        pass',
    )
    (fork / "main.py").write_text(source)
    REFUSED_DURING["unsupported criterion"][0](fork)
    done = guard("run", *SETTINGS, "dc", fork / "main.py", *SHORT)
    assert done.returncode == 2 and "found MultiMarginLoss" in done.stderr


def test_the_host_is_left_clean(guard, fork):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=fork, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "host")
    done = guard("run", *SETTINGS, "dc", fork / "main.py", *SHORT, cwd=fork)
    assert done.returncode == 0, done.stderr
    assert git("status", "--short").split() == ["??", "out/"]


def test_attach_and_run_guard_the_same(guard, python, baseline, fork, tmp_path):
    """One line at the top of a script, and after the script's own imports, does what ``guard run`` does."""
    source = (fork / "main.py").read_text()
    line = "import guard_plugin; g = guard_plugin.attach('dc', strength=1.0, h=0.5)\n"
    (fork / "main.py").write_text(source.replace("\ndef main(", f"\n{line}\n\ndef main(", 1))
    attached = python("main.py", *SHORT, cwd=fork)
    assert attached.returncode == 0, attached.stderr
    assert "20 of 20 expected guarded" in attached.stderr
    done = guard("run", *SETTINGS, "dc", baseline / "main.py", *SHORT)
    assert done.returncode == 0, done.stderr
    assert torch.equal(tensors(fork / "out")[0], tensors(tmp_path / "out")[0])


def test_an_attached_script_in_which_nothing_is_guarded_exits_with_3(python, fork):
    source = (fork / "main.py").read_text()
    line = "import guard_plugin; g = guard_plugin.attach('dc', strength=1.0, h=0.5)\n"
    # As torch.distributed's reduce_op does, in some environments.
    line += "class Asked:\n    __class__ = property(lambda self: __import__('warnings').warn('asked') or Asked)\n"
    line += "\nkept = Asked()\n"
    (fork / "main.py").write_text(source.replace("\ndef main(", f"\n{line}\n\ndef main(", 1))
    REFUSED_DURING["loss written out"][0](fork)
    done = python("main.py", *SHORT, cwd=fork)
    assert done.returncode == 3 and "this was a plain run" in done.stderr and "Warning" not in done.stderr
