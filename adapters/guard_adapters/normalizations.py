"""How hosts normalise each data set, and its number of classes: read in their ``get_dataset``."""

from dataclasses import dataclass

from guard_plugin.spaces import Normalization
from guard_plugin.spaces.usual import normalization_named

__all__ = ["DC_DATASETS", "MTT_DATASETS", "RECOVERY_DATASETS", "HostDataset"]


@dataclass(frozen=True)
class HostDataset:
    """A data set as a family of hosts knows it.

    Args:
        normalization: What the hosts do to its pixels.
        num_classes: Its numbers of classes, several where hosts give one name to several data sets.
        name: What guard-plugin calls it.
    """

    normalization: Normalization
    num_classes: tuple[int, ...]
    name: str


def _usual(name: str, *num_classes: int) -> HostDataset:
    """Return a data set that hosts normalise as is usual for it."""
    return HostDataset(normalization_named(name), num_classes, name)


_IMAGENET = normalization_named("ImageNet")
_CIFAR10 = normalization_named("CIFAR10")

# The last is that of examples/baselines.
_COMMON = {name: _usual(name, 10) for name in ("MNIST", "FashionMNIST", "CIFAR10", "digits")}

DC_DATASETS = {
    **_COMMON,
    "SVHN": _usual("SVHN", 10),
    "CIFAR100": _usual("CIFAR100", 100),
    "TinyImageNet": HostDataset(_IMAGENET, (200,), "TinyImageNet"),
}

MTT_DATASETS = {
    **_COMMON,
    # MTT, TESLA, FTD and DATM do normalise CIFAR-100 with CIFAR-10's numbers.
    "CIFAR100": HostDataset(_CIFAR10, (100,), "CIFAR100"),
    "Tiny": HostDataset(_IMAGENET, (200,), "TinyImageNet"),
    # Ten of its classes in MTT and FTD, all in TESLA.
    "ImageNet": _usual("ImageNet", 10, 1000),
    "ImageNet1K": _usual("ImageNet", 1000),
}

# SRe2L, CDA and SCDD: CIFAR in SRe2L/*small_dataset, Tiny-ImageNet in zeyuanyin/tiny-imagenet.
RECOVERY_DATASETS = {
    **_COMMON,
    # As in MTT, CIFAR-10's numbers.
    "CIFAR100": HostDataset(_CIFAR10, (100,), "CIFAR100"),
    "TinyImageNet": _usual("TinyImageNet", 200),
    "ImageNet": _usual("ImageNet", 1000),
}
