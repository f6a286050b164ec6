"""Hosts that no one wrote an adapter for."""

import json
import shlex

import torch

from tests.versions import load_own

SHORT = shlex.split(
    "--dataset digits --model MLP --ipc 1 --num_exp 1 --num_eval 1 --epoch_eval_train 1 --Iteration 1 --batch_real 8"
)
SETTINGS = shlex.split("--strength 1 --h 0.5 --ledger ledger.json")
SEAMS = shlex.split("--guard main:main --suspend utils:epoch --suspend utils:evaluate_synset")


def test_described_on_the_command_line_a_host_is_guarded_as_by_its_adapter(guard, baseline, tmp_path):
    done = guard("run", *SETTINGS, "auto", *SEAMS, "--expect", 20, baseline / "main.py", *SHORT, "--save_path", "auto")
    assert done.returncode == 0, done.stderr
    ours = json.loads((tmp_path / "ledger.json").read_text())
    done = guard("run", *SETTINGS, "dc", baseline / "main.py", *SHORT, "--save_path", "dc")
    theirs = json.loads((tmp_path / "ledger.json").read_text())
    assert ours["loss_calls"] == theirs["loss_calls"] and ours["adapter"] == "auto"
    images = [load_own(tmp_path / f / "res_DC_digits_MLP_1ipc.pt")["data"] for f in ("auto", "dc")]
    assert torch.equal(images[0][0][0], images[1][0][0])


def test_options_may_stand_before_the_adapter_or_before_the_script(guard, baseline):
    for arguments in (
        [*SETTINGS, *SEAMS, "auto", baseline / "main.py"],
        ["auto", *SEAMS, *SETTINGS, "--form=loss", baseline / "main.py"],
        ["--form", "loss", "dc", *SETTINGS, baseline / "main.py"],
    ):
        # After the script, an option is the script's own, whatever it is called.
        done = guard("run", *arguments, *SHORT, "--num_eval", 0, "--seed", 3, "--ledger", "x")
        assert done.returncode == 2 and "main.py: error: unrecognized arguments: --ledger x" in done.stderr


def test_a_described_host_is_checked_like_any(guard, baseline):
    for seams, code, words in (
        ("--guard utils:no_such", 2, "seam utils.no_such: "),
        ("--guard no_such:epoch", 2, "seam no_such.epoch: "),
        ("--guard main:main", 2, "needs strength, h"),
        ("--guard main:main --suspend main:main --h 1 --strength 1", 2, "cannot be both"),
        ("--guard main:save --h 1 --strength 1", 2, "seam main.save"),
        ("--guard utils:match_loss --h 1 --strength 1", 3, "this was a plain run"),
        ("--guard main:main --suspend utils:epoch --expect 19 --h 1 --strength 1", 3, "expected 19 guarded loss calls"),
        ("--guard main:main --suspend utils:epoch --expect 21 --h 1 --strength 1", 3, "expected 21 guarded loss calls"),
    ):
        done = guard("run", "auto", *shlex.split(seams), baseline / "main.py", *SHORT, "--save_path", "out")
        assert done.returncode == code and words in done.stderr, (seams, done.stderr)


def test_only_auto_takes_seams(guard, baseline):
    done = guard("run", "--guard", "main:main", "dc", baseline / "main.py", *SHORT)
    assert done.returncode == 2 and "for adapter auto only" in done.stderr


def test_a_method_and_a_function_that_others_call_are_seams_too(guard, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "work.py").write_text(
        "import torch\n"
        "class Trainer:\n"
        "    def step(self, net):\n"
        "        torch.nn.CrossEntropyLoss()(net(torch.randn(2, 3)), torch.tensor([0, 1]))\n"
    )
    (tmp_path / "outer.py").write_text("from work import Trainer\ndef go(net):\n    Trainer().step(net)\n")
    (tmp_path / "script.py").write_text("import torch, outer\nouter.go(torch.nn.Linear(3, 2))\n")
    seams = ["--guard", "work:step", "--expect", 1]
    done = guard("run", *SETTINGS, "auto", *seams, "script.py", PYTHONPATH=str(tmp_path / "lib"))
    assert done.returncode == 0 and "1 of 1 expected guarded" in done.stderr, done.stderr
