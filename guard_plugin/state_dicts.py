"""Where checkpoints keep a network's weights, and what tools put before the weights' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

__all__ = ["USUAL_KEYS", "StateDict", "find_state_dict", "load_tensors"]

# Where training scripts keep the weights that they train; of several, the first counts.
USUAL_KEYS = ("model", "state_dict", "net", "model_state_dict", "network")

_PARALLEL = "module."  # of DataParallel, DistributedDataParallel and AveragedModel, each of which may hold another
_COMPILED = re.compile(r"(^|\.)_orig_mod\.")  # of torch.compile, of a whole network or of parts of it
_AVERAGED = "n_averaged"  # AveragedModel's own counter


@dataclass(frozen=True)
class StateDict:
    """A network's weights in a checkpoint.

    Args:
        tensors: The weights by name, without the prefixes of torch.compile, parallel and averaged modules.
        key: Where the checkpoint keeps them; None if it is itself the state dict.
        others: Where it keeps further state dicts, such as a moving average of these weights.
    """

    tensors: dict[str, Tensor]
    key: str | None = None
    others: tuple[str, ...] = ()


def find_state_dict(content: Any) -> StateDict | None:
    """Find the weights in what a training script saved: a state dict, or a dictionary with state dicts.

    Of several state dicts, the one under "model", "state_dict", "net", "model_state_dict" or "network" is taken.

    Returns:
        The weights; None if there are none, or several and none of them under such a key.
    """
    if not isinstance(content, Mapping):
        return None
    if _is_state_dict(content):
        return StateDict(_unwrapped(content))
    found = {str(key): value for key, value in content.items() if _is_state_dict(value)}
    key = next(iter(found)) if len(found) == 1 else next((key for key in USUAL_KEYS if key in found), None)
    return None if key is None else StateDict(_unwrapped(found.pop(key)), key, tuple(found))


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network these values by name; it keeps its own of those that are missing.

    They are laid out as this network is. The versions of modules that torch keeps beside a state dict, and that plain
    dictionaries lack, need not be with them; torchvision's MNASNet refuses a state dict without.

    Raises:
        RuntimeError: If a name is none of the network's, or a shape is another.
    """
    state = network.state_dict()
    state.update(tensors)
    network.load_state_dict(state)


def _is_state_dict(value: Any) -> bool:
    is_filled = isinstance(value, Mapping) and bool(value)
    return is_filled and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {_COMPILED.sub(r"\1", name): value for name, value in state.items()}
    while {name.startswith(_PARALLEL) for name in tensors if name != _AVERAGED} == {True}:
        tensors.pop(_AVERAGED, None)
        consume_prefix_in_state_dict_if_present(tensors, _PARALLEL)
    return tensors
