"""Loading networks that were trained elsewhere from their checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnusableInput
from guard_plugin.files import file_sha256, read_state
from guard_plugin.networks.architectures import ARCHITECTURES, build_network

__all__ = ["checkpoint_subject", "load_checkpoint"]

_NAMED = 3  # entries that messages list
_COMMON = ("resnet34", "resnet50", "resnet101", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "mobilenet_v2", "alexnet")
_UNUSED = "num_batches_tracked"  # by BatchNorm in eval mode; old checkpoints lack it


def load_checkpoint(file: Path, arch: str, *, channels: int, num_classes: int, im_size: tuple[int, int]) -> nn.Module:
    """Build a network and give it the weights of a checkpoint.

    ``file`` holds a state dict, or a training script's dictionary with one (``read_state``). The other arguments are
    those of ``build_network``.

    Returns:
        The network, on the CPU, in eval mode.

    Raises:
        UnusableInput: If the file holds no weights, or those of another network.
        UnsafeFile: If reading the file would run code.
    """
    state = read_state(file)
    network = build_network(arch, channels=channels, num_classes=num_classes, im_size=im_size)
    problems = _problems(state, network.state_dict())
    if problems:
        fitting = [one for one in (*ARCHITECTURES, *_COMMON) if _fits(state, one, channels, num_classes, im_size)]
        hint = f"it fits --arch {_few(fitting)}" if fitting else "is it of another --arch or another data set?"
        raise UnusableInput(
            f"{file} does not fit {arch} for {num_classes} classes and {channels}x{im_size[0]}x{im_size[1]} images: "
            f"{'; '.join(problems)}: {hint}"
        )
    network.load_state_dict(state, strict=False)
    return network.eval()


def checkpoint_subject(file: Path) -> dict[str, Any]:
    """Describe a checkpoint as the "subject" of results.json."""
    return {"kind": "checkpoint", "path": str(file), "sha256": file_sha256(file), "adapter": None, "ipc": None}


def _problems(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Say which entries of a state dict are not as expected."""
    missing = [name for name in expected if name not in state and not name.endswith(_UNUSED)]
    unexpected = [name for name in state if name not in expected]
    shaped = [
        f"{name} (expected {tuple(expected[name].shape)}, got {tuple(value.shape)} of {value.dtype})"
        for name, value in state.items()
        if name in expected and not _is_like(value, expected[name])
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape or kind": shaped}
    return [f"{len(names)} entries are {kind}: {_few(names)}" for kind, names in kinds.items() if names]


def _is_like(value: Tensor, expected: Tensor) -> bool:
    return value.shape == expected.shape and value.is_floating_point() == expected.is_floating_point()


def _few(names: list[str]) -> str:
    return ", ".join(f"{name:.80}" for name in names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")


def _fits(state: Mapping[str, Tensor], arch: str, channels: int, num_classes: int, im_size: tuple[int, int]) -> bool:
    try:
        with torch.device("meta"):
            network = build_network(arch, channels=channels, num_classes=num_classes, im_size=im_size)
    except UnusableInput:
        return False
    return not _problems(state, network.state_dict())
