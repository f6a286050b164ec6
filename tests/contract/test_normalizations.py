"""Each family of hosts normalises each data set by the numbers that stand in its own ``get_dataset``."""

import pytest
from guard_adapters.normalizations import DC_DATASETS, MTT_DATASETS, RECOVERY_DATASETS

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ALL = {
    "MNIST": ((0.1307,), (0.3081,), "MNIST", (10,)),
    "FashionMNIST": ((0.2861,), (0.3530,), "FashionMNIST", (10,)),
    "CIFAR10": (*CIFAR10, "CIFAR10", (10,)),
    "digits": ((0.3051,), (0.3753,), "digits", (10,)),
}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            DC_DATASETS,
            {
                "SVHN": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), "SVHN", (10,)),
                "CIFAR100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762), "CIFAR100", (100,)),
                "TinyImageNet": (*IMAGENET, "TinyImageNet", (200,)),
            },
        ),
        (
            MTT_DATASETS,
            {
                "CIFAR100": (*CIFAR10, "CIFAR100", (100,)),
                "Tiny": (*IMAGENET, "TinyImageNet", (200,)),
                "ImageNet": (*IMAGENET, "ImageNet", (10, 1000)),
                "ImageNet1K": (*IMAGENET, "ImageNet", (1000,)),
            },
        ),
        (
            RECOVERY_DATASETS,
            {
                "CIFAR100": (*CIFAR10, "CIFAR100", (100,)),
                "TinyImageNet": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262), "TinyImageNet", (200,)),
                "ImageNet": (*IMAGENET, "ImageNet", (1000,)),
            },
        ),
    ],
    ids=["dc", "mtt", "recovered"],
)
def test_the_numbers_are_those_of_the_hosts(found, expected):
    assert {
        name: (one.normalization.mean, one.normalization.std, one.name, one.num_classes) for name, one in found.items()
    } == ALL | expected
