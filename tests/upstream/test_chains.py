"""The hosts' whole chains on unmodified clones in GUARD_HOSTS, each step by ``guard run --repair``, without CUDA.

Settings are as small as the scripts' arguments allow: what is shown is that every script reaches its end and writes
what the next one reads. Needs wandb, kornia, pandas, yacs and timm, as the hosts do.
"""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from guard_plugin.files import joint_sha256
from guard_plugin.hosts.profile import Profile
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.account.provenance import Provenance
from tests.upstream.conftest import SHARED, materialize

HOSTS = Path(os.environ.get("GUARD_HOSTS", "/nowhere"))
CLONES = ["DatasetCondensation", "mtt-distillation", "tesla", "FTD-distillation", "DATM", "SRe2L", "tiny-imagenet"]
SMALL = "SRe2L/SRe2L/*small_dataset"

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        not all((HOSTS / clone).is_dir() for clone in CLONES), reason=f"GUARD_HOSTS has not all of {', '.join(CLONES)}"
    ),
    pytest.mark.skipif(
        torch.cuda.is_available(), reason="with CUDA the hosts take it, and the fault cuda-only is none"
    ),
]

# A small network with BatchNorm and nothing that cannot be differentiated twice, which torchvision has weights of.
IMAGENET_ARCH, TINY_ARCH = "shufflenet_v2_x0_5", "regnet_x_400mf"

# Every process begins with the same seeds and with what sitecustomize.py does; it is forked, so that 30 steps do not
# import torch 30 times.
SEEDED = f"""
import importlib, random, runpy
import numpy, torch
for name, accept in runpy.run_path({str(SHARED / "offline" / "sitecustomize.py")!r})["AFTER_IMPORT"].items():
    accept(importlib.import_module(name))
random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
"""


GUARD = f"{SEEDED}\nfrom guard_plugin.cli import main\nmain()"


def sources() -> str:
    files = [file for clone in CLONES for file in sorted((HOSTS / clone).rglob("*.py"))]
    return joint_sha256((str(file), file) for file in files)


@pytest.fixture(scope="module", autouse=True)
def hosts_stay_as_they_are():
    before = sources()
    yield
    assert sources() == before


@pytest.fixture
def step(python, tmp_path) -> Callable[..., dict]:
    """Run one step of a chain to its end; return its ledger."""

    def step(adapter: str, script: str, arguments: str, *options: str, **environment: str) -> dict:
        command = ["run", "--repair", "--ledger", "ledger.json", *options, adapter, HOSTS / script]
        python("-c", GUARD, *command, *shlex.split(arguments), check=True, WANDB_MODE="disabled", **environment)
        ledger = json.loads((tmp_path / "ledger.json").read_text())
        assert ledger["outcome"] == "complete" and all(fault["repaired"] for fault in ledger["faults"])
        assert not any(made["reason"] for made in (ledger["taken_over"] or {}).values())  # all of it is GUARD's
        return ledger

    return step


@pytest.fixture
def measured(python, tmp_path) -> Callable[[str], dict]:
    """Benchmark what a chain left, as small as it gets; return how its parts were made."""

    def measured(arguments: str) -> dict:
        small = "--epochs 1 --seeds 1 --attacks fgsm --eps 1/255 --n-examples 4 --out robustness"
        python("-c", GUARD, "benchmark", *shlex.split(f"{arguments} {small}"), check=True)
        subject = json.loads((tmp_path / "robustness" / "results.json").read_text())["subject"]
        assert not any(made["reason"] for made in subject["made_under"].values())
        return subject["made_under"]

    return measured


def names(ledger: dict) -> set[str]:
    return {fault["name"] for fault in ledger["faults"]}


def make_guarded(file: Path, state: dict) -> None:
    """Save weights with the marker of a guarded run, in place of a training that would take hours."""
    ledger = Ledger(
        adapter="sre2l",
        script="classification/train.py",
        penalty={"name": "curvature", "strength": 1.0},
        strength=1.0,
        unguarded="",
        definitions=[],
        versions={},
        guarded=1,
    )
    provenance = Provenance(Profile("classification/train.py", writes=file.name), (), ledger)
    torch.save(state, file)
    provenance.remove()
    ledger.end("complete")
    provenance.mark()


def test_sre2l_on_cifar(step, python, tmp_path):
    materialize("cifar100", tmp_path / "data", train=2, test=2)
    ledger = step("sre2l", f"{SMALL}/squeeze_cifar.py", "--epochs 1 --output-dir save", "--form", "loss")
    assert ledger["loss_calls"]["guarded"] == ledger["loss_calls"]["expected"] == 1
    recover = "--arch-path save/ckpt.pth --iteration 1 --store-best-images --batch-size 50 --exp-name x --syn-data-path"
    ledger = step("sre2l", f"{SMALL}/recover_cifar.py", f"{recover} syn")
    assert names(ledger) == {"no-map-location", "module-prefix", "cuda-only"} and len(ledger["taken_over"]) == 1
    images = sorted((tmp_path / "syn" / "x").rglob("*.jpg"))
    assert len(images) == 100

    # What is mended in memory is what is mended by hand.
    by_hand = (HOSTS / SMALL / "recover_cifar.py").read_text()
    for published, mended in {
        ".cuda()": "",
        '.to("cuda")': "",
        'device="cuda", ': "",
        'load_state_dict(checkpoint["state_dict"])': 'module.load_state_dict(checkpoint["state_dict"])',
    }.items():
        assert published in by_hand
        by_hand = by_hand.replace(published, mended)
    (tmp_path / "by_hand.py").write_text(by_hand)
    code = f"{SEEDED}\nrunpy.run_path('by_hand.py', run_name='__main__')"
    python("-c", code, *shlex.split(f"{recover} hand"), check=True, PYTHONPATH=str(HOSTS / SMALL))
    assert all(
        file.read_bytes() == (tmp_path / "hand" / file.relative_to(tmp_path / "syn")).read_bytes() for file in images
    )

    relabel = "--epochs 1 --output-dir student --syn-data-path syn/x --teacher-path save/ckpt.pth --ipc 1"
    step("sre2l", f"{SMALL}/relabel_cifar.py", relabel)
    assert (tmp_path / "student" / "ckpt.pth").is_file()


def test_recovery_on_several_devices_and_cdas_on_imagenet(step, tmp_path):
    """With a verifier, CDA's scripts end after the first batch."""
    models, timm = pytest.importorskip("torchvision.models"), pytest.importorskip("timm")
    make_guarded(tmp_path / "teacher.pth", models.get_model(IMAGENET_ARCH).state_dict())
    teacher = ("--teacher", "teacher.pth")
    recover = "--exp-name x --iteration 1 --batch-size 2 --store-best-images"
    archs = f"--arch-name {IMAGENET_ARCH} --verifier-arch {IMAGENET_ARCH}"
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    several = f"{recover} {archs} --num-classes 2 --ipc 1 --syn-data-path several"
    step("sre2l", "SRe2L/SRe2L/recover/multi_gpu/data_synthesis.py", several, *teacher, **rank)
    step("cda", "SRe2L/CDA/recover_cda_in1k.py", f"{recover} {archs} --verifier --syn-data-path 1k", *teacher)

    make_guarded(
        tmp_path / "21k.pth", {"state_dict": timm.create_model("test_byobnet", num_classes=10450).state_dict()}
    )
    torch.save(timm.create_model("mobilenetv3_large_100", num_classes=10450).state_dict(), tmp_path / "verifier.pt")
    weights = "--arch-name test_byobnet --arch-path 21k.pth --verifier --verifier-path verifier.pt"
    ledger = step("cda", "SRe2L/CDA/recover_cda_in21k.py", f"{recover} {weights} --syn-data-path 21k")
    assert names(ledger) == {"module-prefix", "cuda-only"}
    for folder in ("several", "1k", "21k"):
        assert len(list((tmp_path / folder).rglob("*.jpg"))) == 2


def test_sre2l_and_cda_on_tiny_imagenet(step, tmp_path):
    materialize("tinyimagenet", tmp_path / "data", train=2, test=1)
    train = f"--model {TINY_ARCH} --batch-size 10 --lr 0.001 --workers 0"
    script = "tiny-imagenet/classification/train.py"
    ledger = step("cda", script, f"{train} --epochs 1 --output-dir save", "--form", "loss")
    assert ledger["loss_calls"]["guarded"] == ledger["loss_calls"]["expected"] == 2
    ledger = step("cda", script, f"{train} --epochs 2 --output-dir more --resume save/checkpoint.pth", "--form", "loss")
    assert names(ledger) == {"arguments-in-checkpoint", "cuda-only"} and len(ledger["taken_over"]) == 1
    teacher = f"--arch-name {TINY_ARCH} --arch-path save/checkpoint.pth"
    recover = f"{teacher} --iteration 1 --batch-size 50 --syn-data-path syn"
    step("cda", "SRe2L/CDA/recover_cda_tiny.py", f"{recover} --exp-name cda --store-best-images")
    verifier = f"--verifier --verifier-arch {TINY_ARCH} --verifier-arch-path save/checkpoint.pth"
    step("sre2l", f"{SMALL}/recover_tiny.py", f"{recover} --exp-name sre2l --store-last-images --ipc-end 1 {verifier}")
    assert [len(list((tmp_path / "syn" / name).rglob("*.jpg"))) for name in ("cda", "sre2l")] == [200, 200]
    student = (
        f"--teacher-model {TINY_ARCH} --teacher-path save/checkpoint.pth --syn-data-path syn/cda --image-per-class 1"
    )
    step(
        "cda",
        "tiny-imagenet/classification/train_kd.py",
        f"{train} {student} --batch-size 50 --epochs 1 --output-dir student",
    )
    assert (tmp_path / "student" / "checkpoint.pth").is_file()


def test_the_documented_torchrun_takes_gloo(step, tmp_path):
    materialize("tinyimagenet", tmp_path / "data", train=1, test=1)
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29534"}
    train = "--model resnet18 --batch-size 10 --epochs 1 --lr 0.001 --workers 0 --output-dir save"
    ledger = step("sre2l", "tiny-imagenet/classification/train.py", train, "--form", "loss", **rank)
    assert ledger["loss_calls"]["guarded"] == 1


EXPERTS = (
    "--dataset CIFAR10 --model ConvNet --num_experts 1 --save_interval 1 --train_epochs 2 --batch_train 20 "
    "--data_path data --buffer_path buffers"
)
DISTILL = (
    "--dataset CIFAR10 --model ConvNet --ipc 1 --Iteration 1 --syn_steps 2 --expert_epochs 1 --max_start_epoch 1 "
    "--lr_teacher 0.01 --eval_it 1 --num_eval 1 --epoch_eval_train 1 --data_path data --buffer_path buffers"
)
SHARPNESS = "--rho_max=0.01 --rho_min=0.01"
WRITTEN = ["images_0.pt", "images_best.pt", "labels_0.pt", "labels_best.pt"]


@pytest.mark.parametrize(
    ("adapter", "buffer", "distill", "extra", "folders"),
    [
        ("mtt", "mtt-distillation/buffer.py", "mtt-distillation/distill.py", "", ["logged_files"]),
        ("tesla", "tesla/buffer.py", "tesla/distill.py", "", ["logged_files"]),
        (
            "mtt",
            "FTD-distillation/buffer/buffer_FTD.py",
            "FTD-distillation/distill/distill_FTD.py",
            SHARPNESS,
            ["logged_files", "ema_logged_files"],
        ),
    ],
    ids=["MTT", "TESLA", "FTD"],
)
def test_trajectories_are_matched(step, tmp_path, adapter, buffer, distill, extra, folders):
    materialize("cifar10", tmp_path / "data", train=2, test=1)
    step(adapter, buffer, f"{EXPERTS} {extra}", "--form", "loss")
    ledger = step(adapter, distill, DISTILL)
    assert names(ledger) == {"cuda-only", "augmentation-undefined"} and len(ledger["taken_over"]) == 1
    for folder in folders:
        written = {file.name.replace("ema_", "") for file in (tmp_path / folder / "CIFAR10").rglob("*.pt")}
        assert set(WRITTEN) <= written
        for file in (tmp_path / folder).rglob("*images_best.pt"):
            assert torch.load(file).isfinite().all()


DATM = """
dataset: CIFAR10
model: ConvNet
ipc: 1
syn_steps: 2
expert_epochs: 1
buffer_path: buffers
data_path: data
Iteration: 1
batch_syn: 10
num_eval: 1
eval_it: 1
epoch_eval_train: 1
pix_init: {init}
Sequential_Generation: False
batch_train: 64
max_start_epoch: 1
zca: False
"""


def test_datm(step, measured, tmp_path):
    materialize("cifar10", tmp_path / "data", train=2, test=1)
    experts = EXPERTS.replace("--train_epochs 2", "--train_epochs 30")  # until they classify what they are trained on
    script = "DATM/buffer/buffer_FTD.py"
    step(
        "mtt",
        script,
        f"{experts} {SHARPNESS} --alpha=0.3 --lr_teacher=0.01 --mom=0.",
        "--form",
        "loss",
        "--strength",
        "0.001",
    )
    for init, name in (("real", "DATM"), ("samples_predicted_correctly", "DATM"), ("real", "DATM_tesla")):
        (tmp_path / "settings.yaml").write_text(DATM.format(init=init))
        ledger = step("mtt", f"DATM/distill/{name}.py", "--cfg settings.yaml")
        assert names(ledger) == {"cuda-only", "augmentation-undefined"}
    run = next((tmp_path / "logged_files").rglob("images_best.pt")).parent  # a run of one step may have no best
    files = " ".join(
        f"--{option}_dir {run}/{kind}_best.pt"
        for option, kind in (("data", "images"), ("label", "labels"), ("lr", "lr"))
    )
    step("mtt", "DATM/distill/evaluation.py", f"--dataset CIFAR10 --epoch_eval_train 1 --data_path data {files}")
    made, *_ = measured(f"--distilled {run} --adapter mtt --data data").values()
    assert made["settings"]["strength"] == 0.001 and made["runs"][0]["guarded"] == made["runs"][0]["expected"] > 0


@pytest.mark.parametrize("extra", ["--method DC", "--method DSA --dsa_strategy color_crop_cutout_flip_scale_rotate"])
def test_dc_and_dsa_with_one_image_per_class(step, tmp_path, extra):
    materialize("cifar10", tmp_path / "data", train=2, test=1)
    common = (
        "--dataset CIFAR10 --model MLP --ipc 1 --num_exp 1 --num_eval 0 --Iteration 0 --batch_real 2 --data_path data"
    )
    ledger = step("dc", "DatasetCondensation/main.py", f"{common} --save_path out {extra}")
    assert ledger["loss_calls"]["guarded"] == 10 and names(ledger) == {"augments-one-image"}
    assert len(list((tmp_path / "out").glob("res_*.pt"))) == 1
