"""What identifies files: their SHA-256."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["file_sha256", "joint_sha256"]

_CHUNK = 1 << 20  # bytes: a file need not fit into memory


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def joint_sha256(files: Iterable[tuple[str, Path]]) -> str:
    """What ``sha256sum NAME... | sha256sum`` prints.

    Args:
        files: The files, in this order, each with the name that it goes by.
    """
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(f"{file_sha256(file)}  {name}\n".encode())
    return digest.hexdigest()
