"""The paper's scale: what to type on machines that have the data sets and GPUs, in clones of the unmodified hosts.

ImageNette is missing for SRe2L, GUARD on it, and Tables 1 and 3: SRe2L's published scripts recover 1,000, 200 or 100
classes (``recover/data_synthesis.py`` has 1,000 written into it), and ImageNette has ten. Their rows are printed for
Tiny-ImageNet in its place.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from click.testing import CliRunner

from examples.reproduce.cells import TABLES, Arm
from guard_plugin.cli import cli
from guard_plugin.errors import GuardError

__all__ = ["RECOVERY_OF_TINY", "check", "commands_of"]

_SEEDS = 5
_IPCS = {1: (1, 10), 2: (10, 50, 100), 3: (1, 10, 50), 5: (1, 10, 50)}
_SRE2L = "SRe2L/SRe2L"

RECOVERY_OF_TINY = {
    "sre2l": (f"{_SRE2L}/*small_dataset/recover_tiny.py", "--lr 0.1 --r-bn 1 --store-last-images"),
    "cda": ("SRe2L/CDA/recover_cda_tiny.py", "--lr 0.4 --r-bn 0.05 --store-best-images --milestone 1"),
}
"""The scripts that recover images of Tiny-ImageNet, with the options of their recover_tiny.sh and README."""


def commands_of(number: int) -> list[list[str]]:
    """Return the commands of a table: every method and arm of it, of each seed, at the paper's images per class.

    Each is to be typed in a folder of one's own: the arguments of ``guard``, of which HOSTS is the folder of clones.
    """
    table = TABLES[number]
    lines: list[str] = []
    for method in table.methods:
        make = {"sre2l": _squeeze, "cda": _squeeze, "dc": _dc}.get(method, _trajectories)
        for arm in table.arms:
            lines += make(method, arm, _IPCS[number])
            if number == 2 and method == "sre2l":
                lines += _imagenet(arm, _IPCS[number])
    return [shlex.split(line) for line in lines]


def _run(arm: Arm, adapter: str, script: str, arguments: str) -> str:
    options = shlex.join(["--repair", *arm.options])
    return f"run {options} {adapter} {shlex.quote(f'HOSTS/{script}')} {arguments}"


def _benchmark(name: str, adapter: str, distilled: Sequence[str], options: str) -> str:
    sets = " ".join(f"--distilled {path}" for path in distilled)
    return f"benchmark --out {name} --adapter {adapter} {sets} {options} --attacks paper --eps 1/255"


def _squeeze(method: str, arm: Arm, ipcs: Sequence[int]) -> Iterator[str]:
    """SRe2L or CDA on Tiny-ImageNet, with tiny-imagenet's teacher."""
    script, settings = RECOVERY_OF_TINY[method]
    for seed in range(_SEEDS):
        teacher = f"{arm.name}-{seed}/teacher"  # the scripts take no seed: runs differ by chance
        train = (
            f"--model resnet18 --batch-size 256 --epochs 50 --opt sgd --lr 0.2 --momentum 0.9 --weight-decay 1e-4 "
            f"--lr-scheduler cosineannealinglr --lr-warmup-epochs 5 --lr-warmup-method linear --lr-warmup-decay 0.01 "
            f"--output-dir {teacher}"
        )
        yield _run(arm, method, "tiny-imagenet/classification/train.py", train)
        for ipc in ipcs:
            recover = f"--arch-name resnet18 --arch-path {teacher}/checkpoint.pth --iteration 4000 --batch-size 100"
            folder = f"--syn-data-path {arm.name}-{seed} --exp-name {method}-ipc{ipc} --ipc-end {ipc}"
            yield _run(arm, method, script, f"{recover} {settings} {folder}")
    for ipc in ipcs:
        sets = [f"{arm.name}-{seed}/{method}-ipc{ipc}" for seed in range(_SEEDS)]
        teachers = " ".join(f"--teacher {arm.name}-{seed}/teacher/checkpoint.pth" for seed in range(_SEEDS))
        options = f"--dataset TinyImageNet --data DATA --arch resnet18 {teachers}"
        yield _benchmark(f"{method}-{arm.name}-tiny-ipc{ipc}", method, sets, options)


def _imagenet(arm: Arm, ipcs: Sequence[int]) -> Iterator[str]:
    """SRe2L on ImageNet-1K: torchvision's reference for the teacher, then recover.sh and relabel.sh."""
    folder = f"{arm.name}/imagenet"
    train = f"--model resnet18 --data-path DATA/imagenet --batch-size 128 --epochs 90 --output-dir {folder}/teacher"
    yield _run(arm, "sre2l", "vision/references/classification/train.py", train)
    given = Arm(arm.name, (*arm.options, "--teacher", f"{folder}/teacher/checkpoint.pth"))
    for ipc in ipcs:
        recover = (
            f"--arch-name resnet18 --exp-name ipc{ipc} --syn-data-path {folder} --batch-size 100 --lr 0.25 "
            f"--iteration 4000 --l2-scale 0 --tv-l2 0 --r-bn 0.01 --verifier --store-best-images --ipc-end {ipc}"
        )
        yield _run(given, "sre2l", f"{_SRE2L}/recover/data_synthesis.py", recover)
        relabel = (
            f"-a resnet18 -b 1024 -j 8 --epochs 300 --fkd-seed 42 --input-size 224 --min-scale-crops 0.08 "
            f"--max-scale-crops 1 --use-fp16 --fkd-path {folder}/fkd-ipc{ipc} --mode fkd_save --mix-type cutmix "
            f"--data {folder}/ipc{ipc}"
        )
        yield _run(given, "sre2l", f"{_SRE2L}/relabel/generate_soft_label.py", relabel)
        options = f"--dataset ImageFolder@224 --data DATA/imagenet --arch resnet18 --fkd {folder}/fkd-ipc{ipc}"
        yield _benchmark(f"sre2l-{arm.name}-imagenet-ipc{ipc}", "sre2l", [f"{folder}/ipc{ipc}"], options)


def _dc(method: str, arm: Arm, ipcs: Sequence[int]) -> Iterator[str]:
    """DC on CIFAR-10, its first data set: the paper does not say which Table 5 is of."""
    for ipc in ipcs:
        for seed in range(_SEEDS):
            save = f"--data_path DATA --save_path {arm.name}-{seed}"
            distil = f"--dataset CIFAR10 --model ConvNet --ipc {ipc} --num_exp 1 --num_eval 0 {save}"
            yield _run(arm, method, "DatasetCondensation/main.py", distil)
        sets = [f"{arm.name}-{seed}/res_DC_CIFAR10_ConvNet_{ipc}ipc.pt" for seed in range(_SEEDS)]
        yield _benchmark(f"dc-{arm.name}-ipc{ipc}", "dc", sets, "--data DATA")


def _trajectories(method: str, arm: Arm, ipcs: Sequence[int]) -> Iterator[str]:
    """MTT on ImageNette and TESLA on ImageNet-1K, by the settings of their READMEs; RUN is what wandb calls a run."""
    clone, data, buffer, distill = {
        "mtt": (
            "mtt-distillation",
            "--dataset ImageNet --subset imagenette --res 128 --model ConvNetD5",
            "--train_epochs 50 --num_experts 100",
            "--syn_steps 20 --expert_epochs 2 --max_start_epoch 10 --lr_img 1000 --lr_lr 1e-06 --lr_teacher 0.01",
        ),
        "tesla": (
            "tesla",
            "--dataset ImageNet --model ConvNetD4",
            "--train_epochs 50 --num_experts 50",
            "--syn_steps 10 --expert_epochs 3 --max_start_epoch 10 --lr_img 10000 --lr_lr 1e-04 --lr_teacher 0.01 "
            "--batch_syn 100 --teacher_label",
        ),
    }[method]
    common = f"{data} --data_path DATA/imagenet --buffer_path {arm.name}-buffers"
    yield _run(arm, method, f"{clone}/buffer.py", f"{common} {buffer}")
    for ipc in ipcs:
        for _ in range(_SEEDS):
            yield _run(arm, method, f"{clone}/distill.py", f"{common} --ipc {ipc} {distill}")
        sets = ["logged_files/ImageNet/RUN"] * _SEEDS
        options = f"--dataset ImageFolder@128 --data DATA/{'imagenette' if method == 'mtt' else 'imagenet'}"
        yield _benchmark(f"{method}-{arm.name}-ipc{ipc}", method, sets, options)


def check(commands: Sequence[Sequence[str]], hosts: Path | None) -> int:
    """Print the commands; with a folder of clones, try each run with ``--dry-run``. Return an exit code."""
    refused = tried = 0
    for command, *words in commands:
        line = shlex.join(["guard", command, *words])
        print(line.replace("HOSTS", str(hosts)) if hosts else line)
        if hosts and command == "run":
            tried += 1
            placed = [word.replace("HOSTS", str(hosts.resolve())) for word in words]
            done = CliRunner().invoke(cli, ["run", "--dry-run", *placed])
            if done.exit_code:
                refused += 1
                print(f"# refused: {done.exception if isinstance(done.exception, GuardError) else done.output}")
    if hosts:
        print(f"# {tried} runs tried with --dry-run, {refused} refused")
    return 2 if refused else 0
