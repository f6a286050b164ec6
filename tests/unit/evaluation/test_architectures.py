import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import ARCHITECTURES, build_network


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_maps_images_to_logits(arch):
    network = build_network(arch, channels=3, num_classes=7, im_size=(16, 24))
    assert network(torch.rand(2, 3, 16, 24)).shape == (2, 7)


# The published sizes: "ConvNet (320K)" on CIFAR-10; the others follow from the layer shapes by hand.
@pytest.mark.parametrize(
    ("arch", "channels", "size", "expected"),
    [
        ("ConvNet", 3, 32, 320_010),
        ("ConvNet", 1, 28, 317_706),
        ("ConvNetNN", 3, 32, 320_010 - 3 * 256),
        ("ConvNetBN", 3, 32, 320_010),
        ("ConvNetW32", 1, 8, 320 + 64 + 2 * (9248 + 64) + 330),
        ("MLP", 1, 28, 784 * 128 + 128 + 128 * 128 + 128 + 1290),
    ],
)
def test_parameter_counts(arch, channels, size, expected):
    network = build_network(arch, channels=channels, num_classes=10, im_size=(size, size))
    assert parameters(network) == expected


def test_instancenorm_is_one_affine_group_per_channel():
    network = build_network("ConvNet", channels=3, num_classes=10, im_size=(32, 32))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert [(m.num_groups, m.num_channels, m.affine) for m in norms] == [(128, 128, True)] * 3


def test_mnist_images_are_padded_to_32():
    convolution = build_network("ConvNet", channels=1, num_classes=10, im_size=(28, 28)).features[0]
    assert convolution(torch.rand(1, 1, 28, 28)).shape[2:] == (32, 32)


def test_unknown_architecture_lists_the_known_ones():
    with pytest.raises(UnusableInput, match=r"'ResNet99'.*ConvNet, ConvNetD1.*MLP"):
        build_network("ResNet99", channels=3, num_classes=10, im_size=(32, 32))


def test_images_that_the_pooling_uses_up_are_refused():
    with pytest.raises(UnusableInput, match="at least 16x16"):
        build_network("ConvNetD4", channels=1, num_classes=10, im_size=(8, 8))
