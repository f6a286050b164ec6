"""The usual normalisation of each data set, and how users write one of their own."""

import re

from guard_plugin.errors import UnusableInput
from guard_plugin.names import spelled
from guard_plugin.spaces import Normalization

__all__ = ["normalization_named", "parse_normalization"]

_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# As training scripts of each data set have it. Distillation hosts differ for CIFAR100 and TinyImageNet.
_USUAL = {
    "digits": Normalization((0.3051,), (0.3753,)),
    "MNIST": Normalization((0.1307,), (0.3081,)),
    "FashionMNIST": Normalization((0.2861,), (0.3530,)),
    "CIFAR10": Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "CIFAR100": Normalization((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "SVHN": Normalization((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "TinyImageNet": Normalization((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "ImageNet": _IMAGENET,
    "Imagenette": _IMAGENET,
}

_GIVEN = re.compile(r"mean=(?P<mean>[^;=]+);std=(?P<std>[^;=]+)")
_HOW = 'give "none", a data set\'s name, or "mean=0.5,0.5,0.5;std=0.5,0.5,0.5" with one number per channel'


def normalization_named(dataset: str) -> Normalization:
    """Return the normalisation that networks for a data set ("ImageNet", "ImageNet@224") are usually trained with.

    Raises:
        UnusableInput: If no normalisation is usual for it, as for the user's own folders.
    """
    name = spelled(dataset.partition("@")[0], _USUAL)
    if name not in _USUAL:
        raise UnusableInput(
            f"no normalisation is usual for {dataset!r}, only for {', '.join(_USUAL)}: say what the network needs; "
            f"{_HOW}"
        )
    return _USUAL[name]


def parse_normalization(text: str, channels: int) -> Normalization:
    """Read a network's normalisation, for images of so many channels, as the user writes it.

    The text is "none" for a network that takes pixels in [0, 1], a name that ``normalization_named`` knows, or numbers
    such as "mean=0.5,0.5,0.5;std=0.5,0.5,0.5".

    Raises:
        UnusableInput: If the text is none of these, or for another number of channels.
    """
    given = _GIVEN.fullmatch(text.replace(" ", ""))
    if text.strip() == "none":
        return Normalization.identity(channels)
    if given is None and "=" in text:
        raise UnusableInput(f"expected a normalisation, got {text!r}: {_HOW}")
    found = normalization_named(text.strip()) if given is None else Normalization(*map(_numbers, given.group(1, 2)))
    if len(found.mean) != channels:
        raise UnusableInput(f"expected a normalisation of {channels} channel(s), got {text!r}: {_HOW}")
    return found


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UnusableInput(f"expected numbers, comma separated, got {text!r}: {_HOW}") from error
