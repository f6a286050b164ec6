"""How hosts normalise each data set, and its number of classes: read in their ``get_dataset``."""

from dataclasses import dataclass

from guard_plugin.spaces import Normalization
from guard_plugin.spaces.usual import normalization_named

__all__ = ["DC_DATASETS", "MTT_DATASETS", "RECOVERY_DATASETS", "HostDataset"]


@dataclass(frozen=True)
class HostDataset:
    """A data set as hosts know it: guard-plugin's ``name``, and each number of classes that hosts mean by theirs."""

    normalization: Normalization
    num_classes: tuple[int, ...]
    name: str


def _dataset(name: str, *num_classes: int, like: str = "") -> HostDataset:
    """Return a data set that hosts normalise as is usual for it, or for the data set ``like``."""
    return HostDataset(normalization_named(like or name), num_classes, name)


# The last is that of examples/baselines.
_COMMON = {name: _dataset(name, 10) for name in ("MNIST", "FashionMNIST", "CIFAR10", "digits")}

DC_DATASETS = {
    **_COMMON,
    "SVHN": _dataset("SVHN", 10),
    "CIFAR100": _dataset("CIFAR100", 100),
    "TinyImageNet": _dataset("TinyImageNet", 200, like="ImageNet"),
}

MTT_DATASETS = {
    **_COMMON,
    # MTT, TESLA, FTD and DATM do normalise CIFAR-100 with CIFAR-10's numbers.
    "CIFAR100": _dataset("CIFAR100", 100, like="CIFAR10"),
    "Tiny": _dataset("TinyImageNet", 200, like="ImageNet"),
    # Ten of its classes in MTT and FTD, all in TESLA.
    "ImageNet": _dataset("ImageNet", 10, 1000),
    "ImageNet1K": _dataset("ImageNet", 1000),
}

# SRe2L, CDA and SCDD: CIFAR in SRe2L/*small_dataset, Tiny-ImageNet in zeyuanyin/tiny-imagenet.
RECOVERY_DATASETS = {
    **_COMMON,
    # As in MTT, CIFAR-10's numbers.
    "CIFAR100": _dataset("CIFAR100", 100, like="CIFAR10"),
    "TinyImageNet": _dataset("TinyImageNet", 200),
    "ImageNet": _dataset("ImageNet", 1000),
}
