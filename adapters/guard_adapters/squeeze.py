"""What SRe2L and CDA share: a teacher trained on real data ("squeeze"), which all later steps only use.

The penalty belongs to the teacher's training (GUARD paper, section 4.4). Images are then recovered from the teacher,
relabelled by it, and students trained on them; losses there are on synthetic images, or none of a classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guard_adapters.squeeze_faults import faults_of
from guard_plugin.hosts import MODULE_LEVEL, ExpectedCount, Profile, Seam, UnguardedOption

__all__ = ["ARCH", "IMAGENET", "RECOVER", "RELABEL", "SQUEEZE", "TINY", "VALIDATE", "Step"]

_TEACHER = "*.pth"


def _batches(variables: Mapping[str, Any]) -> int:
    args = variables["args"]
    return int((args.epochs - getattr(args, "start_epoch", 0)) * len(variables["data_loader"]))


def _classification(
    script: str,
    parameters: tuple[str, ...],
    evaluation: tuple[str, ...],
    default_arch: str = "resnet18",
    dataset: tuple[str, str] | None = None,
) -> Profile:
    """Return the profile of torchvision's reference training, and of the code bases that descend from it."""
    module = script.rpartition("/")[2].removesuffix(".py")
    return Profile(
        script=script,
        seams=(
            Seam(module, "train_one_epoch", "opens", parameters),
            Seam(module, "evaluate", "suspends", evaluation),
            Seam(module, "main", "tells", ("args",)),
        ),
        expected=ExpectedCount(
            seam=f"{module}.main",
            formula=_batches,
            explanation="(args.epochs - args.start_epoch) * len(data_loader)",
        ),
        unguarded_options=(UnguardedOption("--test-only", "it only tests a network"),),
        writes=_TEACHER,
        reads=_TEACHER,  # --resume
        faults=faults_of(script),
        about={"arch": ("--model", default_arch), **({"dataset": dataset} if dataset else {})},
    )


_TRAIN = ("model", "criterion", "optimizer", "data_loader", "device", "epoch", "args")
_EVALUATE = ("model", "criterion", "data_loader", "device")

_CIFAR = "SRe2L/*small_dataset/squeeze_cifar.py"

SQUEEZE = (
    # SRe2L for CIFAR-100: all code is at the module's level.
    Profile(
        script=_CIFAR,
        seams=(
            Seam("squeeze_cifar", "train", "opens", ("epoch",)),
            Seam("squeeze_cifar", "test", "suspends", ("epoch",)),
            Seam("squeeze_cifar", MODULE_LEVEL, "tells"),
        ),
        expected=ExpectedCount(
            seam="squeeze_cifar",
            formula=lambda variables: variables["args"].epochs * len(variables["trainloader"]),
            explanation="args.epochs * len(trainloader)",
        ),
        unguarded_options=(UnguardedOption("--check-ckpt", "it only reads a checkpoint"),),
        writes=_TEACHER,
        reads=_TEACHER,  # --resume
        faults=faults_of(_CIFAR),
        about={"dataset": "CIFAR100", "arch": "resnet18"},
    ),
    # zeyuanyin/tiny-imagenet, for Tiny-ImageNet; torchvision's reference; ours.
    _classification(
        "classification/train.py", (*_TRAIN, "model_ema", "scaler"), (*_EVALUATE, "print_freq", "log_suffix")
    ),
    _classification("squeeze.py", _TRAIN, _EVALUATE, "ConvNetBN32-64-128", ("--dataset", "FashionMNIST")),
)


@dataclass(frozen=True)
class Step:
    """What a step after the teacher's training does: in words, what it fills, and the options of what it reads."""

    what: str
    writes_into: str = ""
    reads_folders: tuple[str, ...] = ()

    def profile(self, script: str, **known: Any) -> Profile:
        """Return the profile of a script that is such a step."""
        return Profile(
            script,
            unguarded=f"it {self.what}; the teacher's training is what GUARD guards",
            writes="" if self.writes_into else f"{_TEACHER}*",
            writes_into=self.writes_into,
            reads=_TEACHER,
            reads_folders=self.reads_folders,
            faults=faults_of(script),
            **known,
        )

    def ours(self, name: str) -> Profile:
        """Return the profile of our own script, which its seam tells from others of the same name."""
        return self.profile(f"{name}.py", seams=(Seam(name, "main", "tells", ("args",)),))


ARCH = {"arch": ("--arch-name", "resnet18")}
IMAGENET = {**ARCH, "dataset": "ImageNet"}
TINY = {**ARCH, "dataset": "TinyImageNet"}

RECOVER = Step("recovers images from a teacher", writes_into="new*/*.jpg")
RELABEL = Step("softens labels with a teacher", writes_into="epoch_*/*", reads_folders=("--data",))
VALIDATE = Step("trains students on recovered images", reads_folders=("--syn-data-path", "--train-dir", "--fkd-path"))
