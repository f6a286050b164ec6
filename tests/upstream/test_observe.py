"""``guard observe`` on unmodified clones that have no adapter, and docs/your-own-host.md's commands on one of them.

GUARD_HOSTS holds the clones under the names that ``git clone`` gives them: An-Efficient-Dataset-Condensation-Plugin,
CAFE, DatasetCondensation, EDC, Efficient-Dataset-Condensation, FTD-distillation, G_VBSM_Dataset_Condensation, PAD,
ROME, WMDD, mtt-distillation, seqmatch; and two forks in folders of their owners: Shoumik-Gandre/DatasetCondensation
and miaostudy/DatasetCondensation. A clone that is not there is skipped, and one that needs a package that is not there.
adapters/README.md names the commits. Scripts run in folders of their own, with no_cuda/ on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.upstream.conftest import materialize, of_a_host

HOSTS = Path(os.environ.get("GUARD_HOSTS", "/nowhere"))
SQUEEZE = "--model ConvNetW128 --dataset CIFAR-10 --train_epochs 1 --data_path DATA --squeeze_path OUT"
DC = (
    "--dataset CIFAR10 --model MLP --ipc 1 --num_exp 1 --num_eval 1 --epoch_eval_train 1 --Iteration 1 --batch_real 16 "
    "--data_path DATA --save_path OUT/"
)
EXPERTS = (
    "--dataset CIFAR10 --model ConvNet --train_epochs 1 --num_experts 1 --batch_train 64 --batch_real 64 "
    "--data_path DATA --buffer_path OUT"
)
IDC = "-d cifar10 --data_dir DATA -n convnet --depth 3 --width 0.05 --batch_real 8 --n_data 8 --test --seed 1"


@dataclass(frozen=True)
class Tried:
    """A script below GUARD_HOSTS, its arguments, the options that ``observe`` proposes, and how many losses they guard.

    ``lacks`` are packages that it imports and does not use here. ``fails`` says what the host itself ends with.
    """

    script: str
    arguments: str
    options: str
    guarded: int
    lacks: str = ""
    fails: str = ""


GUARDED = (
    Tried("G_VBSM_Dataset_Condensation/Branch_CIFAR_10/squeeze/train.py", SQUEEZE, "--guard train:main", 5),
    Tried("EDC/Branch_CIFAR_10/squeeze/train.py", SQUEEZE, "--guard train:main", 5),
    Tried("seqmatch/seqmatch-mtt/buffer.py", EXPERTS, "--guard utils:epoch", 5),
    Tried(
        "seqmatch/seqmatch-idc/condense_new.py",
        f"{IDC} --ipcs [1] --niters [1] --inner_loops [60] --lrs_img_ori [5e-3]",
        "--guard condense_new:matchloss --guard train:train_epoch --real condense_new.py:422 --real train.py:230 "
        "--real train.py:234",
        690,
        lacks="efficientnet_pytorch,wandb",
        fails="UnboundLocalError",
    ),
    Tried(
        "Efficient-Dataset-Condensation/condense.py",
        f"{IDC} --ipc 1 --niter 1 --inner_loop 2",
        "--guard condense:matchloss --guard train:train_epoch",
        1148,
        lacks="efficientnet_pytorch",
    ),
    Tried(
        "An-Efficient-Dataset-Condensation-Plugin/main_LoDC.py",
        DC,
        "--guard main_LoDC:main --suspend utils:epoch",
        20,
    ),
    Tried("Shoumik-Gandre/DatasetCondensation/main.py", DC, "--guard main:main --suspend utils:epoch", 20),
    Tried("Shoumik-Gandre/DatasetCondensation/main2.py", DC, "--guard main2:main --suspend utils:epoch", 20),
    Tried(
        "miaostudy/DatasetCondensation/main_CAMGM.py",
        f"{DC} --proxy_model ConvNet --checkpoint_path OUT",
        "--guard utils:train_CAM --guard main_CAMGM:main --suspend utils:epoch",
        23,
    ),
    Tried(
        "WMDD/pretrain/pretrain.py",
        "--data-path FOLDER --device cpu --output-dir OUT --epochs 1 --workers 0 --batch-size 20 --train-crop-size 32 "
        "--val-crop-size 32 --val-resize-size 32",
        "--guard pretrain:train_one_epoch",
        3,
    ),
    Tried(
        "PAD/buffer/buffer_FTD.py",
        "--model MLP --num_experts 10 --train_epochs 1 --batch_train 512 --rho_max 0.01 --rho_min 0.01 "
        "--data_path DATA --buffer_path OUT",
        "--guard gsam.gsam:get_grad",
        20,
    ),
    Tried(
        "ROME/Code/ROME_cifar10.py",
        "--model ConvNet --embed_last 1000 --ipc 2 --Iteration 0 --num_exp 1 --batch_real 8 --trained_bs 16 "
        "--model_train_steps 2 --train_net_num 1 --data_path DATA --save_path OUT",
        "--guard ROME_cifar10:main",
        4,
        lacks="visdom",
    ),
    Tried("DatasetCondensation/main.py", DC, "--guard main:main --suspend utils:epoch", 20),
    Tried("mtt-distillation/buffer.py", EXPERTS, "--guard utils:epoch", 5),
    Tried(
        "FTD-distillation/buffer/buffer_FTD.py",
        f"{EXPERTS} --rho_max=0.01 --rho_min=0.01",
        "--guard gsam.gsam:get_grad",
        10,
    ),
)

# Further options of observe, the script and its arguments, and the reason that is named.
REFUSED = {
    "a loss whose gradients are thrown away": (
        "--calls 40",
        "CAFE/distill.py",
        f"{DC.replace('MLP', 'ConvNet')} --eval_mode M",
        "are on real data, but their gradients are zeroed before anybody reads them",
    ),
    "distribution matching": (
        "",
        "Shoumik-Gandre/DatasetCondensation/main_DM.py",
        DC.replace("MLP", "ConvNet"),
        "none of the 3 losses seen trains a network on real data",
    ),
}

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(not HOSTS.is_dir(), reason="GUARD_HOSTS names no folder of clones"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    materialize("cifar10", folder, train=32, test=10)
    materialize("imagefolder", folder, train=6, test=2)
    return folder


@pytest.fixture
def command(data, tmp_path):
    """Return what runs a script on the data."""

    def of(script: str, arguments: str) -> list[str]:
        given = arguments.replace("DATA", str(data)).replace("FOLDER", str(data)).replace("OUT", str(tmp_path / "out"))
        return [str(host_of(script) / Path(script).name), *shlex.split(given)]

    return of


@pytest.fixture
def run(guard, tmp_path):
    """Run the command line in a folder of its own, beside links to what lies beside the script's."""

    def in_its_own_folder(*words: object, beside: Path, lacks: str = ""):
        folder = tmp_path / "clone" / beside.name
        if not folder.exists():
            folder.mkdir(parents=True)
            for one in beside.parent.iterdir():
                if one != beside:
                    (folder.parent / one.name).symlink_to(one)
        done = guard(*words, cwd=folder, **of_a_host(lacks))
        missing = re.search("^ModuleNotFoundError: (.*)", done.stderr, flags=re.M)
        if missing:
            pytest.skip(f"the host ends with {missing[1]}")
        return done

    return in_its_own_folder


def host_of(script: str) -> Path:
    if not (HOSTS / script).is_file():
        pytest.skip(f"GUARD_HOSTS names no folder with {script}")
    return (HOSTS / script).parent


@pytest.mark.parametrize("tried", GUARDED, ids=lambda tried: tried.script)
def test_what_observe_proposes_guards_exactly(run, command, tmp_path, tried):
    place, script = {"beside": host_of(tried.script), "lacks": tried.lacks}, command(tried.script, tried.arguments)
    done = run("observe", "--json", tmp_path / "seen.json", *script, **place)
    assert (done.returncode != 0) == bool(tried.fails) and tried.fails in done.stderr, done.stderr
    words = shlex.split(json.loads((tmp_path / "seen.json").read_text())["command"])
    count = "" if tried.fails else f" --expect {tried.guarded}"
    assert words[words.index("auto") + 1 : words.index(script[0])] == f"{tried.options}{count}".split()
    proposed = [word.replace(str(tmp_path / "out"), str(tmp_path / "again")) for word in words[2:]]
    done = run("run", "--ledger", tmp_path / "ledger.json", *proposed, **place)
    assert (done.returncode != 0) == bool(tried.fails) and tried.fails in done.stderr, done.stderr
    calls = json.loads((tmp_path / "ledger.json").read_text())["loss_calls"]
    assert calls["guarded"] == tried.guarded and calls["expected"] in (None, tried.guarded)


@pytest.mark.parametrize(("options", "script", "arguments", "why"), REFUSED.values(), ids=REFUSED)
def test_what_it_does_not_propose_it_gives_a_reason_for(run, command, tmp_path, options, script, arguments, why):
    words = ("--json", tmp_path / "seen.json", *options.split())
    done = run("observe", *words, *command(script, arguments), beside=host_of(script))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["command"] is None and why in " ".join([seen["why_not"], *seen["notes"]]), done.stderr


def test_the_page_about_ones_own_host(guard, data, tmp_path):
    """Its commands, in order; DATA and OUT are the reader's own folders."""
    host = host_of("An-Efficient-Dataset-Condensation-Plugin/main_LoDC.py")
    text = (ROOT / "docs" / "your-own-host.md").read_text().split("## The whole way")[1]
    commands = re.findall(r"^    guard ((?:.*\\\n)*.*)$", text, flags=re.M)
    assert [command.split()[0] for command in commands] == ["doctor", "observe", "run", "benchmark"]
    expected = {"doctor": 2}  # no adapter fits
    for command in commands:
        text = command.replace("\\\n", " ").replace("DATA", str(data)).replace("OUT", str(tmp_path / "out"))
        words = [str(next(Path("/").glob(word[1:]))) if "*" in word else word for word in text.split()]
        done = guard(*words, cwd=host, **of_a_host())
        assert done.returncode == expected.get(words[0], 0), done.stderr
    assert "mean" in done.stdout
