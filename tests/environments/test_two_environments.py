"""Distil in the host's environment, benchmark in another: only files travel."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BASELINES, Runner
from tests.fork_server import process_environment

DISTIL = (
    *("main.py", "--dataset", "digits", "--model", "MLP", "--ipc", "1", "--num_exp", "1", "--num_eval", "1"),
    *("--epoch_eval_train", "2", "--Iteration", "1", "--outer_loop", "2", "--inner_loop", "1", "--batch_real", "8"),
)


def test_what_an_old_environment_distilled_is_benchmarked_in_this_one(tmp_path: Path, guard: Runner) -> None:
    python = os.environ.get("GUARD_DISTIL_WITH")
    if python is None:
        pytest.skip("asks for GUARD_DISTIL_WITH, a Python, as python -m tests.environments gives it")
    run = [python, "-m", "guard_plugin", "run", "--strength", "1", "--h", "0.5", "--ledger", str(tmp_path / "l.json")]
    distil = [*run, "dc", *DISTIL, "--save_path", str(tmp_path)]
    subprocess.run(distil, check=True, cwd=BASELINES / "dc", env=process_environment())
    ledger = json.loads((tmp_path / "l.json").read_text())
    assert ledger["outcome"] == "complete" and ledger["loss_calls"]["guarded"] > 0
    given = ("--distilled", tmp_path / "res_DC_digits_MLP_1ipc.pt", "--adapter", "dc", "--ledger", tmp_path / "l.json")
    options = ("--seeds", "1", "--attacks", "fgsm", "--n-examples", "20", "--eps", "8/255")
    guard("benchmark", "--out", tmp_path / "out", *given, *options, check=True)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["ledger"]["versions"] == ledger["versions"]
    assert 0 <= results["accuracy"]["fgsm"]["mean"] <= results["accuracy"]["clean"]["mean"] <= 1
