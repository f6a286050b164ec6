import sys

import pytest
import torch
import torchvision
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.networks import ARCHITECTURES, build_network
from guard_plugin.networks.architectures import architecture_named
from guard_plugin.versions import strict_zip


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


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("resnet18", "resnet18"),
        ("ResNet18", "resnet18"),
        ("RESNET-18", "resnet18"),
        ("ResNet50-3X3", "resnet50-3x3"),
        ("Wide-ResNet50-2", "wide_resnet50_2"),
        ("convnetd3", "ConvNetD3"),
        ("convnet", "ConvNet"),
        ("convnet-D4-w64-Batch", "ConvNet-d4-w64-batch"),
        ("ConvNetBN16-32", "ConvNetBN16-32"),
        ("mlp", "MLP"),
        ("VGG11_BN", "vgg11_bn"),
        ("ResNet99", "ResNet99"),
        ("-3x3", "-3x3"),
    ],
)
def test_names_are_read_in_any_case(written, name):
    assert architecture_named(written) == name


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


@pytest.mark.parametrize(
    ("arch", "side"),
    [("resnet18-3x3", 96), ("resnet18-7x7", 32), ("resnet34-3x3", 32), ("mobilenet_v3_small-3x3", 64)],
)
def test_the_stem_that_hosts_give_a_model_can_be_named(arch, side):
    """train.py of tiny-imagenet changes each --model in this way, those without such a stem, too."""
    name, stem = arch.split("-")
    theirs = torchvision.models.get_model(name, num_classes=7)
    if stem == "3x3":
        theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = build_network(arch, channels=3, num_classes=7, im_size=(side, side))
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize("arch", ["vgg11-7x7", "resnet18-5x5", "resnet99-7x7", "resnet99-3x3"])
def test_no_other_stem_is_known(arch):
    with pytest.raises(UnusableInput, match=f"unknown architecture '{arch}'"):
        build_network(arch, channels=3, num_classes=7, im_size=(32, 32))


def test_resnet18_for_large_images_is_torchvisions():
    ours = build_network("resnet18", channels=3, num_classes=7, im_size=(96, 96))
    assert ours.conv1.kernel_size == (7, 7) and isinstance(ours.maxpool, nn.MaxPool2d)
    with pytest.raises(UnusableInput, match="takes images of 3 channels, got 1"):
        build_network("resnet18", channels=1, num_classes=7, im_size=(96, 96))


def test_images_too_small_for_the_blocks_are_refused():
    with pytest.raises(UnusableInput, match="at least 8x8 pixels .*got 7x9"):
        build_network("ConvNetBN32-64-128", channels=1, num_classes=10, im_size=(7, 9))


@pytest.mark.parametrize(
    ("arch", "same"),
    [
        ("ConvNet-d3-w128-instance-relu-avg", "ConvNet"),
        ("ConvNet-d2", "ConvNetD2"),
        ("ConvNet-w32", "ConvNetW32"),
        ("ConvNet-nonorm", "ConvNetNN"),
        ("ConvNet-batch", "ConvNetBN"),
        ("ConvNet-layer", "ConvNetLN"),
        ("ConvNet-group", "ConvNetGN"),
        ("ConvNet-sigmoid", "ConvNetAS"),
        ("ConvNet-leakyrelu", "ConvNetAL"),
        ("ConvNet-nopool", "ConvNetNP"),
        ("ConvNet-max", "ConvNetMP"),
    ],
)
def test_the_grammar_says_what_dcs_names_say(arch, same):
    both = [build_network(name, channels=3, num_classes=7, im_size=(16, 16)) for name in (arch, same)]
    assert str(both[0]) == str(both[1])


def test_the_grammar_combines():
    """Two blocks of 5 channels by hand, with other layers than the default's."""
    ours = build_network("ConvNet-max-sigmoid-batch-w5-d2", channels=3, num_classes=7, im_size=(8, 12))
    theirs = nn.Sequential(
        *(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Sigmoid(), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Sigmoid(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(5 * 2 * 3, 7)),
    )
    theirs.load_state_dict(dict(strict_zip(theirs.state_dict(), ours.state_dict().values())))
    images = torch.randn(4, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_without_pooling_images_may_be_smaller():
    network = build_network("ConvNet-d4-w8-nopool", channels=1, num_classes=3, im_size=(4, 4))
    assert network(torch.rand(2, 1, 4, 4)).shape == (2, 3) and network.classifier.in_features == 8 * 16


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("ConvNet-d0", "'d0' is unknown"),
        ("ConvNet-none", "'none' is unknown"),
        ("ConvNet-", "'' is unknown"),
        ("ConvNet-d2-d3", "'d3' is a second depth"),
        ("ConvNet-batch-instance", "'instance' is a second norm"),
        ("ConvNet-group-w6", "width that 4 groups divide, got 6"),
        ("ConvNet-d5", "at least 32x32"),
    ],
)
def test_other_names_of_convnets_are_refused(arch, words):
    with pytest.raises(UnusableInput, match=words):
        build_network(arch, channels=3, num_classes=7, im_size=(16, 16))


def build(arch, channels=3, side=32):
    return build_network(arch, channels=channels, num_classes=7, im_size=(side, side))


@pytest.mark.parametrize("arch", ["squeezenet1_1", "mobilenet_v3_small", "regnet_y_400mf", "resnet34"])
def test_torchvisions_models_are_as_they_are_there(arch):
    """Also their initialisation: the check of the shapes draws no random number."""
    torch.manual_seed(0)
    ours = build(arch)
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(arch, weights=None, num_classes=7)
    assert str(ours) == str(theirs) and ours.training
    states = (ours.state_dict(), theirs.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("arch", ["squeezenet1_1", "regnet_y_400mf"])
def test_torchvisions_models_can_be_checked_without_memory(arch):
    with torch.device("meta"):
        network = build(arch)
    assert network.training and all(value.is_meta for value in network.state_dict().values())


def test_models_with_auxiliary_outputs_answer_with_logits():
    assert build("googlenet", side=64)(torch.rand(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arch", "channels", "side", "words"),
    [
        ("vit_b_16", 3, 32, "vit_b_16 does not take images of 32x32 pixels: Wrong image height"),
        ("alexnet", 3, 32, "alexnet does not take images of 32x32 pixels"),
        ("inception_v3", 3, 64, "inception_v3 does not take images of 64x64 pixels"),
        ("vgg11", 1, 32, "takes images of 3 channels, got 1"),
    ],
)
def test_images_that_torchvisions_models_do_not_take_are_refused(arch, channels, side, words):
    with pytest.raises(UnusableInput, match=words):
        build(arch, channels, side)


@pytest.mark.parametrize(
    ("arch", "near"), [("resnet5", "resnet50"), ("ConvNetD5", "ConvNetD4"), ("mobilenetv2", "mobilenet_v2")]
)
def test_unknown_architectures_name_close_ones(arch, near):
    with pytest.raises(UnusableInput, match=f"close to it: [^:]*{near}[^:]*: expected one of"):
        build(arch)


@pytest.mark.parametrize("arch", ["fcn_resnet50", "r3d_18", "resnet50_quantized", "list_models"])
def test_other_names_of_torchvision_are_no_classifiers(arch):
    with pytest.raises(UnusableInput, match="unknown architecture"):
        build(arch)


def test_without_torchvision_its_models_are_unknown_and_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UnusableInput, match="needs pip install"):
        build("vgg11")
    assert build("ConvNetD1").training
