"""How hosts normalise each data set, and its number of classes: read in their ``get_dataset``."""

from dataclasses import dataclass

from guard_plugin.spaces import Normalization

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


_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

# The last is that of examples/baselines.
_COMMON = {
    "MNIST": HostDataset(Normalization((0.1307,), (0.3081,)), (10,), "MNIST"),
    "FashionMNIST": HostDataset(Normalization((0.2861,), (0.3530,)), (10,), "FashionMNIST"),
    "CIFAR10": HostDataset(_CIFAR10, (10,), "CIFAR10"),
    "digits": HostDataset(Normalization((0.3051,), (0.3753,)), (10,), "digits"),
}

DC_DATASETS = {
    **_COMMON,
    "SVHN": HostDataset(Normalization((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)), (10,), "SVHN"),
    "CIFAR100": HostDataset(Normalization((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)), (100,), "CIFAR100"),
    "TinyImageNet": HostDataset(_IMAGENET, (200,), "TinyImageNet"),
}

MTT_DATASETS = {
    **_COMMON,
    # Not a slip of ours: MTT, TESLA, FTD and DATM normalise CIFAR-100 with CIFAR-10's numbers.
    "CIFAR100": HostDataset(_CIFAR10, (100,), "CIFAR100"),
    "Tiny": HostDataset(_IMAGENET, (200,), "TinyImageNet"),
    # Ten of its classes in MTT and FTD, all in TESLA.
    "ImageNet": HostDataset(_IMAGENET, (10, 1000), "ImageNet"),
    "ImageNet1K": HostDataset(_IMAGENET, (1000,), "ImageNet"),
}

_TINY = Normalization((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262))

# SRe2L, CDA and SCDD: CIFAR in SRe2L/*small_dataset, Tiny-ImageNet in zeyuanyin/tiny-imagenet.
RECOVERY_DATASETS = {
    **_COMMON,
    # As in MTT, CIFAR-10's numbers.
    "CIFAR100": HostDataset(_CIFAR10, (100,), "CIFAR100"),
    "TinyImageNet": HostDataset(_TINY, (200,), "TinyImageNet"),
    "ImageNet": HostDataset(_IMAGENET, (1000,), "ImageNet"),
}
