"""Files: written whole or not at all, read without executing what they hold, identified by their SHA-256."""

import argparse
import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from guard_plugin.errors import UnsafeFile, UnusableInput

__all__ = [
    "UNFINISHED",
    "atomic_file",
    "explain_write_errors",
    "file_sha256",
    "joint_sha256",
    "load_untrusted",
    "read_json_object",
    "read_state",
]

UNFINISHED = ".unfinished"
"""What the name of a file ends in while it is written; a process that is killed leaves it behind."""

_CHUNK = 1 << 20  # bytes: a file need not fit into memory

# Hosts store accuracies as numpy scalars beside their tensors, and training scripts their arguments beside the weights.
# These rebuild numbers, names and plain values, and nothing else.
_SCALAR = type(np.float64(0)).__reduce__(np.float64(0))[0]
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]

# Where training scripts keep the weights in a checkpoint.
_STATE_KEYS = ("model", "state_dict", "net")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name complete, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def explain_write_errors(
    path: Path, fix: str = "What was kept before is still there: make room, then run the same command"
) -> Iterator[None]:
    """Tell the user what to do where a file cannot be written; by default, in the middle of the work.

    Raises:
        UnusableInput: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UnusableInput(f"cannot write {path}: {error}. {fix}") from error


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object; raise UnusableInput for any other file."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableInput(f"{file} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnusableInput(f"expected a JSON object in {file}, got {type(value).__name__}")
    return value


def file_sha256(file: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def joint_sha256(files: Iterable[tuple[str, Path]]) -> str:
    """Compute what ``sha256sum NAME... | sha256sum`` prints, of files in this order, each with its name."""
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(f"{file_sha256(file)}  {name}\n".encode())
    return digest.hexdigest()


def load_untrusted(path: Path) -> Any:
    """Load what ``torch.save`` wrote, on the CPU, running none of its code.

    Returns:
        What the file holds: tensors, numbers, strings, numpy scalars, and containers of these (argparse's too).

    Raises:
        UnusableInput: If there is no such file, or it is not one that ``torch.save`` wrote.
        UnsafeFile: If it holds anything whose loading would call code.
    """
    if not path.is_file():
        raise UnusableInput(f"no such file: {path}")
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n\n")[0].strip()
        raise UnsafeFile(
            f"{path} is refused: it holds more than tensors, numbers and containers of these, and reading it "
            f"would run code of the file's own. Save plain tensors instead. (torch: {reason})"
        ) from error
    except Exception as error:  # damaged files make torch fail in many ways
        raise UnusableInput(f"{path} cannot be read as a file that torch.save wrote: {error!r}") from error


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
        next((content[key] for key in _STATE_KEYS if isinstance(content.get(key), Mapping)), content)
        if isinstance(content, Mapping)
        else None
    )
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UnusableInput(
            f"{file}: expected a state dict, or a checkpoint with one under {', '.join(_STATE_KEYS)}, found neither"
        )
    # DataParallel and DistributedDataParallel put this before each name.
    return {name.removeprefix("module."): value for name, value in state.items()}
