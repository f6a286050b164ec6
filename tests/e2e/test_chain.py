"""From a guarded teacher to the benchmark: markers tell along the whole chain how its outputs were made."""

import json
import shlex

import pytest

from tests.conftest import BASELINES

ARCH = "ConvNetBN16-32"
KNOWN = ("--dataset", "digits", "--arch", ARCH)


@pytest.fixture
def chain(guard, tmp_path):
    """Run the steps of our SRe2L; return what runs further ones, under ``guard run`` with these options."""

    def step(script: str, arguments: str, *options: str) -> str:
        done = guard("run", *options, "sre2l", BASELINES / "sre2l" / f"{script}.py", *shlex.split(arguments))
        assert done.returncode == 0, done.stderr
        return done.stderr

    train = f"--dataset digits --model {ARCH} --epochs 10 --n-train 800"
    step("squeeze", f"{train} --output-dir guarded")
    step("squeeze", f"{train} --output-dir plain", "--strength", "0")
    step("recover", "--arch-path guarded/checkpoint.pth --iteration 100 --ipc-end 2 --exp-name x")
    return step


def benchmark(guard, tmp_path, out: str, *options: str) -> tuple[dict, str]:
    common = "--adapter sre2l --attacks fgsm --eps 8/255 --n-examples 20 --seeds 1"
    done = guard("benchmark", "--out", out, *shlex.split(common), *options)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / out / "results.json").read_text()), done.stdout


def test_a_benchmark_says_how_its_distilled_set_was_made(guard, chain, tmp_path):
    relabel = "--teacher guarded/checkpoint.pth --data syn_data/x --epochs 20 --batch-size 10"
    assert "2 of 2 files read are GUARD's" in chain("relabel", relabel)
    results, text = benchmark(guard, tmp_path, "a", "--distilled", "syn_data/x", "--fkd", "fkd")
    assert results["protocol"]["dataset"] == "digits" and results["protocol"]["arch"] == ARCH  # as the markers tell
    for path in ("syn_data/x", "fkd"):
        made = results["subject"]["made_under"][path]
        assert made["reason"] == "" and made["settings"]["strength"] == 100 and len(made["runs"]) == 1
        assert f"{path}: made under curvature (form gradient, h 0.0619, strength 100); sre2l squeeze.py" in text
        assert "130 of 130 losses guarded" in text
    assert "warning: fkd" not in text and "warning: syn_data" not in text and "penalties" not in text
    _, text = benchmark(guard, tmp_path, "b", "--distilled", "syn_data/x", "--teacher", "plain/checkpoint.pth")
    assert "warning: what was measured goes back to different penalties" in text
    (tmp_path / "syn_data" / "x.guard.json").unlink()
    done = guard("benchmark", "--out", "c", *shlex.split("--distilled syn_data/x --adapter sre2l --attacks fgsm"))
    assert done.returncode == 2 and "expected --dataset" in done.stderr
    options = shlex.split(f"--distilled syn_data/x --dataset digits --arch {ARCH} --teacher guarded/checkpoint.pth")
    _, text = benchmark(guard, tmp_path, "c", *options)
    assert (
        "syn_data/x: not known to be made under GUARD: there is no x.guard.json" in text
        and "warning: syn_data" not in text
    )


def test_a_chain_that_broke_is_warned_of_and_a_baseline_is_called_one(guard, chain, tmp_path):
    chain("recover", "--arch-path plain/checkpoint.pth --iteration 100 --ipc-end 2 --exp-name y")
    _, text = benchmark(guard, tmp_path, "a", "--distilled", "syn_data/y", "--teacher", "plain/checkpoint.pth")
    assert "syn_data/y: made under strength 0, a baseline" in text
    assert "warning: syn_data" not in text
    (tmp_path / "syn_data" / "x" / "new000" / "class000_id000.jpg").write_bytes(
        (tmp_path / "syn_data" / "y" / "new000" / "class000_id000.jpg").read_bytes()
    )
    _, text = benchmark(
        guard, tmp_path, "b", "--distilled", "syn_data/x", *KNOWN, "--teacher", "guarded/checkpoint.pth"
    )
    assert "warning: syn_data/x: not known to be made under GUARD: its files are others" in text
