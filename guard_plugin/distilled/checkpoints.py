"""The weights in a checkpoint, as training scripts write it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from guard_plugin.distilled.loading import load_untrusted
from guard_plugin.errors import UnusableInput

__all__ = ["read_state"]

# Where training scripts keep the weights in a checkpoint.
_KEYS = ("model", "state_dict", "net")


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a network's weights from a checkpoint, as training scripts write it.

    Args:
        file: A state dict, or a dictionary with one under "model", "state_dict" or "net".

    Raises:
        UnusableInput: If the file holds none.
        UnsafeFile: If reading it would run code.
    """
    content = load_untrusted(file)
    state = (
        next((content[key] for key in _KEYS if isinstance(content.get(key), Mapping)), content)
        if isinstance(content, Mapping)
        else None
    )
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UnusableInput(
            f"{file}: expected a state dict, or a checkpoint with one under {', '.join(_KEYS)}, found neither"
        )
    # DataParallel and DistributedDataParallel put this before each name.
    return {name.removeprefix("module."): value for name, value in state.items()}
