"""Reading files without executing what they hold."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guard_plugin.errors import UnsafeFile, UnusableInput

__all__ = ["load_untrusted"]

# Hosts store accuracies as numpy scalars beside their tensors. These rebuild numbers and nothing else.
_NUMPY_SCALARS: list[Any] = [
    np.dtype,
    *(type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
]


# Training scripts keep their arguments beside the weights: names and plain values.
_ARGUMENTS: list[Any] = [argparse.Namespace]


def _numpy_scalar() -> list[Any]:
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]


def load_untrusted(path: Path) -> Any:
    """Load what ``torch.save`` wrote, as tensors and plain values on the CPU, running none of its code.

    Args:
        path: The file.

    Returns:
        What the file holds: tensors, numbers, strings, numpy scalars, and containers of these (argparse's too).

    Raises:
        UnusableInput: If there is no such file, or it is not one that ``torch.save`` wrote.
        UnsafeFile: If it holds anything whose loading would call code.
    """
    if not path.is_file():
        raise UnusableInput(f"no such file: {path}")
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS + _numpy_scalar() + _ARGUMENTS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n\n")[0].strip()
        raise UnsafeFile(
            f"{path} is refused: it holds more than tensors, numbers and containers of these, and reading it "
            f"would run code of the file's own. Save plain tensors instead. (torch: {reason})"
        ) from error
    except Exception as error:  # damaged files make torch fail in many ways
        raise UnusableInput(f"{path} cannot be read as a file that torch.save wrote: {error!r}") from error
