import pytest
import torch
import torchvision
from torch import nn

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


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (3, 64), (1, 28)])
def test_resnet18_has_the_stem_that_hosts_give_it_for_small_images(channels, side):
    """squeeze_cifar.py of SRe2L and train.py of tiny-imagenet."""
    theirs = torchvision.models.get_model("resnet18", num_classes=7)
    theirs.conv1 = nn.Conv2d(channels, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    theirs.maxpool = nn.Identity()
    ours = build_network("resnet18", channels=channels, num_classes=7, im_size=(side, side))
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, channels, side, side)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_resnet18_for_large_images_is_torchvisions():
    ours = build_network("resnet18", channels=3, num_classes=7, im_size=(96, 96))
    assert ours.conv1.kernel_size == (7, 7) and isinstance(ours.maxpool, nn.MaxPool2d)
    with pytest.raises(UnusableInput, match="takes 3 channels, got 1"):
        build_network("resnet18", channels=1, num_classes=7, im_size=(96, 96))


def test_images_too_small_for_the_blocks_are_refused():
    with pytest.raises(UnusableInput, match="at least 8x8 pixels, got 7x9"):
        build_network("ConvNetBN32-64-128", channels=1, num_classes=10, im_size=(7, 9))
