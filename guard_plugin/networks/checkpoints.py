"""Loading networks that were trained elsewhere from their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnusableInput
from guard_plugin.files import file_sha256, read_state_dict
from guard_plugin.networks.architectures import ARCHITECTURES, build_network
from guard_plugin.networks.weights import fits, load_weights
from guard_plugin.spaces import InputSpace

__all__ = ["checkpoint_subject", "load_checkpoint"]

_COMMON = (
    *("resnet18-7x7", "resnet34", "resnet34-3x3", "resnet50", "resnet50-3x3", "resnet101", "resnet101-3x3"),
    *("vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "mobilenet_v2", "alexnet"),
)


def load_checkpoint(
    file: Path,
    arch: str,
    *,
    channels: int,
    num_classes: int,
    im_size: tuple[int, int],
    space: InputSpace | None = None,
) -> nn.Module:
    """Build a network and give it the weights of a checkpoint.

    ``file`` holds a state dict, or a training script's dictionary with one; ``load_weights`` says what else is read.
    ``space`` is what the caller brings pixels to, with which a normalising layer in the file must agree. The other
    arguments are those of ``build_network``.

    Returns:
        The network, on the CPU, in eval mode.

    Raises:
        UnusableInput: If the file holds no weights, or those of another network.
        UnsafeFile: If reading the file would run code.
    """
    network = build_network(arch, channels=channels, num_classes=num_classes, im_size=im_size)

    def hint(state: Mapping[str, Tensor]) -> str:
        fitting = [one for one in (*ARCHITECTURES, *_COMMON) if _fits(state, one, channels, num_classes, im_size)]
        if fitting:
            return f"it fits --arch {', '.join(fitting)}"
        classes = _outputs(state, network, num_classes)
        if classes is not None and _fits(state, arch, channels, classes, im_size):
            return f"it fits {arch} for {classes} classes: another data set, or --num-classes {classes}?"
        return "is it of another --arch or another data set?"

    what = f"{arch} for {num_classes} classes and {channels}x{im_size[0]}x{im_size[1]} images"
    load_weights(network, file, what=what, hint=hint, space=space)
    return network.eval()


def checkpoint_subject(file: Path) -> dict[str, Any]:
    """Describe a checkpoint as the "subject" of results.json; "weights" is the key under which it keeps them."""
    identity = {"kind": "checkpoint", "path": str(file), "sha256": file_sha256(file)}
    return {**identity, "weights": read_state_dict(file).key, "adapter": None, "ipc": None}


def _outputs(state: Mapping[str, Tensor], network: nn.Module, num_classes: int) -> int | None:
    """Return how many classes a state dict seems to be for, if it is the network's but for their number."""
    heads = {name: value.dim() for name, value in network.state_dict().items() if value.shape[:1] == (num_classes,)}
    sizes = {
        len(value)
        for name, value in state.items()
        if any(f".{name}".endswith(f".{head}") and value.dim() == dim for head, dim in heads.items())
    }
    return sizes.pop() if len(sizes) == 1 else None


def _fits(state: Mapping[str, Tensor], *network: Any) -> bool:
    try:
        return fits(state, _expected(*network))
    except UnusableInput:
        return False


@lru_cache
def _expected(arch: str, channels: int, num_classes: int, im_size: tuple[int, int]) -> Mapping[str, Tensor]:
    """Return the state dict of a network, without values."""
    with torch.device("meta"):
        network = build_network(arch, channels=channels, num_classes=num_classes, im_size=im_size)
    return network.state_dict()
