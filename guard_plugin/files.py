"""Files: written whole or not at all, read without executing what they hold, identified by their SHA-256."""

import argparse
import hashlib
import json
import os
import pickle
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from guard_plugin.errors import UnsafeFile, UnusableInput
from guard_plugin.state_dicts import USUAL_KEYS, StateDict, find_state_dict
from guard_plugin.versions import allowed_globals

__all__ = [
    "NUMPY_SCALARS",
    "atomic_file",
    "existing_file",
    "explain_write_errors",
    "file_sha256",
    "is_our_json",
    "is_special",
    "joint_sha256",
    "json_text",
    "load_untrusted",
    "read_json_object",
    "read_state_dict",
    "refuse_foreign_files",
    "refuse_other_file",
    "remove_unfinished",
    "write_json",
]

# What a file is called while it is written; a process that is killed leaves it behind.
_UNFINISHED = re.compile(r"\..+\.\d+\.unfinished")

_NAMED_BY_TORCH = re.compile(r"(?:GLOBAL|class) (\w+(?:\.\w+)*)")  # what torch refuses to load, in its message

_CHUNK = 1 << 20  # bytes: a file need not fit into memory

_SCALAR = type(np.float64(0)).__reduce__(np.float64(0))[0]
NUMPY_SCALARS: list[Any] = [
    np.dtype,
    *(type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What ``torch.load(weights_only=True)`` must know to read numpy's scalars: it rebuilds numbers, and nothing else."""

# Hosts store accuracies as numpy scalars beside their tensors, and training scripts their arguments beside the weights.
_SAFE = [argparse.Namespace, *NUMPY_SCALARS]

_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_DTYPES = (*_INTEGERS, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_HEAD = 1024  # bytes, from which a file is recognised
_SMALL = 1 << 29  # bytes that a tensor may always take: where values repeat, it may be larger than its file


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name complete, or not at all; a device or a pipe is written to straight.

    A symbolic link stays one: the file that it leads to is written.
    """
    if is_special(path):
        # Without waiting for a reader, of which a pipe may have none.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb") as file:
            os.set_blocking(file.fileno(), True)
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def json_text(value: Mapping[str, Any]) -> str:
    """Return an object as its file holds it; a ValueError is raised for a number that is not finite."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file of one object, complete or not at all; errors are ``json_text``'s."""
    content = json_text(value).encode()
    with atomic_file(path) as file:
        file.write(content)


def is_special(path: Path) -> bool:
    """Tell whether a path leads to something that is there and is no regular file; fail where links form a circle."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def refuse_foreign_files(folder: Path, names: Iterable[str], mark: str) -> None:
    """Refuse a folder that holds files of such names, which would be overwritten, without the file that marks ours."""
    foreign = [] if os.path.lexists(folder / mark) else [name for name in names if os.path.lexists(folder / name)]
    if foreign:
        raise UnusableInput(
            f"{folder} holds {', '.join(foreign)} of another origin (there is no {mark}): choose another --out"
        )


def refuse_other_file(file: Path, is_ours: Callable[[bytes], bool], *, expected: str, fix: str) -> None:
    """Refuse to replace a file that does not begin as ours do; devices, pipes and empty files hold nothing to lose."""
    if not file.is_file():
        return
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if head and not is_ours(head):
        raise UnusableInput(f"expected {expected}, but {file} is another file: {fix}")


def is_our_json(head: bytes) -> bool:
    """Tell by its first bytes whether a file is one of those that ``write_json`` wrote with their schema in front."""
    return head.startswith(b'{\n  "schema": ')


def remove_unfinished(folder: Path) -> None:
    """Delete the files of a folder that ``atomic_file`` began and did not finish, and nothing else."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if _UNFINISHED.fullmatch(entry.name) and stat.S_ISREG(entry.lstat().st_mode):
            entry.unlink()


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


def existing_file(path: Path) -> Path:
    """Return the path of a regular file; raise UnusableInput for any other, such as a pipe, which may never end."""
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnusableInput(f"no such file: {path}") from error
    except (OSError, ValueError) as error:
        raise UnusableInput(f"{path} cannot be read: {error}") from error
    if not stat.S_ISREG(kind):
        found = "a folder" if stat.S_ISDIR(kind) else "a pipe or device"
        raise UnusableInput(f"expected a file, but {path} is {found}")
    if not os.access(path, os.R_OK):
        raise UnusableInput(f"{path} cannot be read: permission denied")
    return path


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object; raise UnusableInput for any other file."""
    try:
        value = json.loads(existing_file(file).read_text(encoding="utf-8"))
        json.dumps(value, allow_nan=False)  # What can be read need not be writable: infinity, or too deep a nesting.
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise UnusableInput(f"{file} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnusableInput(f"expected a JSON object in {file}, got {type(value).__name__}")
    return value


def file_sha256(file: Path) -> str:
    """Compute the SHA-256 of a regular file, in hexadecimal."""
    digest = hashlib.sha256()
    with existing_file(file).open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def joint_sha256(files: Iterable[tuple[str, Path]]) -> str:
    """Compute what ``sha256sum NAME... | sha256sum`` prints, of files in this order, each with its name."""
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(file_sha256(file).encode() + b"  " + os.fsencode(name) + b"\n")
    return digest.hexdigest()


def load_untrusted(path: Path) -> Any:
    """Load what ``torch.save`` wrote, on the CPU, running none of its code.

    Returns:
        What the file holds: dense tensors of real numbers, numbers, strings, numpy scalars, and containers of these
        (argparse's too).

    Raises:
        UnusableInput: If there is no such file, it is not one that ``torch.save`` wrote, or it holds other tensors, or
            tensors that take more memory than the file has bytes.
        UnsafeFile: If it holds anything whose loading would call code.
    """
    size = existing_file(path).stat().st_size
    allowed = allowed_globals(_SAFE)
    try:
        _refuse_compressed(path, size)
        with allowed:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _NAMED_BY_TORCH.search(str(error))
        raise UnsafeFile(
            f"{path} is refused: it holds more than tensors, numbers and containers of these"
            f"{f' ({named[1]})' if named else ''}, and reading it would run code of the file's own. Save plain tensors "
            f"instead, as torch.save(network.state_dict(), FILE) does"
        ) from error
    except Exception as error:  # damaged files make torch fail in many ways
        raise UnusableInput(f"{path} cannot be read as a file that torch.save wrote: {error!r}") from error
    for tensor in _tensors(content):
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested:
            raise UnusableInput(
                f"{path}: expected dense tensors of real numbers, found one that is sparse, quantised, complex, nested "
                f"or meta ({tensor.dtype}, {tensor.layout}): convert it and save it again"
            )
        if tensor.numel() * tensor.element_size() > max(size, _SMALL):
            raise UnusableInput(
                f"{path}: a tensor of shape {tuple(tensor.shape)} repeats its values and takes more memory than the "
                f"file has bytes ({size}): save it after .contiguous()"
            )
    return content


def _refuse_compressed(path: Path, size: int) -> None:
    """Refuse an archive that unpacks to more bytes than it has: torch compresses nothing."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:
            raise UnusableInput(f"it unpacks from {size} to {unpacked} bytes, and torch.save does not compress")


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yield the tensors in containers of containers, each container once."""
    waiting, met = [content], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (Mapping, list, tuple, set, argparse.Namespace)) and id(one) not in met:
            met.add(id(one))
            inner = vars(one) if isinstance(one, argparse.Namespace) else one
            waiting += inner.values() if isinstance(inner, Mapping) else inner


def read_state_dict(file: Path) -> StateDict:
    """Read a network's weights from a checkpoint, as training scripts write it (``find_state_dict``).

    Raises:
        UnusableInput: If the file holds none, or several between which its keys do not tell.
        UnsafeFile: If reading it would run code.
    """
    content = load_untrusted(file)
    found = find_state_dict(content)
    if found is None:
        held = content if isinstance(content, Mapping) else {}
        raise UnusableInput(
            f"{file}: expected a state dict, or a checkpoint with one, under {', '.join(USUAL_KEYS)} if it holds "
            f"several; found {', '.join(f'{key!r:.80}' for key in held) or type(content).__name__}: save the network's "
            f"weights alone, as by torch.save(torch.load({file.name!r})[KEY], 'weights.pt')"
        )
    return found
