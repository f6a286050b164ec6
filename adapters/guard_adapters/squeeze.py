"""What SRe2L and CDA share: a teacher trained on real data ("squeeze"), which all later steps only use.

The penalty belongs to the teacher's training (GUARD paper, section 4.4). Images are then recovered from the teacher,
relabelled by it, and students trained on them; losses there are on synthetic images, or none of a classification.
"""

from collections.abc import Mapping
from typing import Any

from guard_adapters.squeeze_faults import faults_of
from guard_plugin.hosts import MODULE_LEVEL, ExpectedCount, Profile, Seam, UnguardedOption

__all__ = ["SQUEEZE", "later_step", "our_step"]

_TEACHER = "*.pth"


def _batches(variables: Mapping[str, Any]) -> int:
    args = variables["args"]
    return int((args.epochs - getattr(args, "start_epoch", 0)) * len(variables["data_loader"]))


def _classification(script: str, parameters: tuple[str, ...], evaluation: tuple[str, ...]) -> Profile:
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
    ),
    # zeyuanyin/tiny-imagenet, for Tiny-ImageNet; torchvision's reference; ours.
    _classification(
        "classification/train.py", (*_TRAIN, "model_ema", "scaler"), (*_EVALUATE, "print_freq", "log_suffix")
    ),
    _classification("squeeze.py", _TRAIN, _EVALUATE),
)


def later_step(script: str, what: str, seams: tuple[Seam, ...] = (), roots: tuple[str, ...] = ()) -> Profile:
    """Return the profile of a step after the teacher's training; ``seams`` tell it from scripts of the same name."""
    unguarded = f"it {what}; the teacher's training is what GUARD guards"
    return Profile(script, seams, unguarded=unguarded, roots=roots, reads=_TEACHER, faults=faults_of(script))


def our_step(name: str, what: str) -> Profile:
    """Return the profile of such a step of our own baselines."""
    return later_step(f"{name}.py", what, (Seam(name, "main", "tells", ("args",)),))
