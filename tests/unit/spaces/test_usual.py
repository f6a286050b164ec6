"""What a checkpoint's network is fed."""

import pytest
import torch
from guard_adapters.normalizations import DC_DATASETS, RECOVERY_DATASETS

from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import Normalization
from guard_plugin.spaces.usual import normalization_named, parse_normalization


@pytest.mark.parametrize("name", ["digits", "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN"])
def test_usual_normalisations_are_those_of_dc(name):
    assert normalization_named(name) == DC_DATASETS[name].normalization


@pytest.mark.parametrize("name", ["TinyImageNet", "ImageNet"])
def test_usual_normalisations_of_large_images_are_those_of_sre2l(name):
    assert normalization_named(f"{name}@64") == normalization_named(name) == RECOVERY_DATASETS[name].normalization


@pytest.mark.parametrize("name", ["ImageFolder@64", "mine.npz", "cifar10"])
def test_where_none_is_usual_the_user_is_asked(name):
    with pytest.raises(UnusableInput, match='no normalisation is usual.*give "none"'):
        normalization_named(name)


def test_numbers_and_names_are_read():
    given = parse_normalization("mean=0.5,0.4,0.3; std=0.2, 0.25,1", 3)
    assert given == Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 1.0))
    assert parse_normalization("MNIST", 1) == normalization_named("MNIST")


@pytest.mark.parametrize("channels", [1, 3])
def test_none_is_the_identity(channels):
    pixels = torch.rand(2, channels, 4, 4)
    assert torch.equal(parse_normalization("none", channels).to_input(pixels), pixels)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mean=0.5;std=0.5", "of 3 channel"),
        ("MNIST", "of 3 channel"),
        ("mean=0.5,0.5;std=0.5,0.5,0.5", "as many means"),
        ("mean=0,0,0;std=1,0,1", "> 0"),
        ("mean=0,0,a;std=1,1,1", "expected numbers, comma separated, got '0,0,a'"),
        ("mean=0,0,nan;std=1,1,1", "by finite numbers.*nan"),
        ("mean=0,0,0;std=1,1,inf", "by finite numbers.*inf"),
        ("mean=0,0,0", "expected a normalisation, got"),
        ("std=1,1,1;mean=0,0,0", "expected a normalisation, got"),
        ("", "no normalisation is usual for ''"),
    ],
)
def test_other_texts_are_refused(text, words):
    with pytest.raises(UnusableInput, match=words):
        parse_normalization(text, 3)
