import pytest

from guard_plugin.names import spelled


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("cifar10", ("CIFAR10", "CIFAR100"), "CIFAR10"),
        ("Fashion-MNIST", ("MNIST", "FashionMNIST", "FashionMNIST"), "FashionMNIST"),
        ("a_b", ("a_b", "A-B"), "a_b"),
        ("A_B", ("a_b", "a-b"), "A_B"),
        ("other", ("one",), "other"),
    ],
)
def test_only_case_and_hyphens_may_differ(name, known, found):
    assert spelled(name, known) == found
