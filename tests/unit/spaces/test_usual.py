"""What a checkpoint's network is fed."""

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.spaces import Normalization
from guard_plugin.spaces.usual import normalization_named, parse_normalization

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("digits", (0.3051,), (0.3753,)),
        ("MNIST", (0.1307,), (0.3081,)),
        ("FashionMNIST", (0.2861,), (0.3530,)),
        ("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("CIFAR100", (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
        ("SVHN", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        ("TinyImageNet", (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
        ("ImageNet", *IMAGENET),
        ("Imagenette", *IMAGENET),
    ],
)
def test_usual_normalisations_with_or_without_a_size(name, mean, std):
    assert normalization_named(f"{name}@64") == normalization_named(name) == Normalization(mean, std)


@pytest.mark.parametrize("name", ["ImageFolder@64", "mine.npz", "cifar"])
def test_where_none_is_usual_the_user_is_asked(name):
    with pytest.raises(UnusableInput, match='no normalisation is usual.*give "none"'):
        normalization_named(name)


def test_numbers_and_names_are_read():
    given = parse_normalization("mean=0.5,0.4,0.3; std=0.2, 0.25,1", 3)
    assert given == Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 1.0))
    assert parse_normalization("MNIST", 1) == parse_normalization("mnist", 1) == normalization_named("MNIST")
    assert normalization_named("tiny-imagenet@32") == normalization_named("TinyImageNet")


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
        ("mean=125.3,123,113.9;std=63,62.1,66.7", "units of pixels in .*from 0 to 255: divide them by 255"),
        ("mean=125.3,123,113.9;std=0.2,0.2,0.2", "divide them by 255"),
        ("mean=0,0,0;std=255,255,255", "divide them by 255"),
        ("mean=0,0,0", "expected a normalisation, got"),
        ("std=1,1,1;mean=0,0,0", "expected a normalisation, got"),
        ("", "no normalisation is usual for ''"),
    ],
)
def test_other_texts_are_refused(text, words):
    with pytest.raises(UnusableInput, match=words):
        parse_normalization(text, 3)
